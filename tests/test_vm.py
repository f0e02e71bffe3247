# SPDX-License-Identifier: GPL-2.0-only
"""The parsers of vm/, and what a campaign makes of the streams of its guests."""

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.stream import GARBLED, in_flight, read
from vm import __main__ as command
from vm import initramfs, kernels, modules, packages
from vm.built import LinuxSource
from vm.campaign import Campaign, Loss
from vm.errors import VmError
from vm.kernels import Kernel, Running
from vm.packages import Package
from vm.progress import Progress, line
from vm.tail import Tail

ROOT = Path(__file__).parent.parent
LIST = Path("/lists/kernels.txt")


# -- the list


def test_the_shipped_list_has_five_kernels_beside_those_in_groups() -> None:
    listed = kernels.load(ROOT / "kernels.txt")
    assert [kernel.group for kernel in listed] == [""] * 5 + ["history"] * 4 + ["built"] * 2
    assert all(isinstance(kernel.source, Package) for kernel in listed[:9])
    assert "WP_UNPOPULATED" not in (listed[1].features or ())
    assert "WP_UNPOPULATED" in (listed[2].features or ())


def test_each_source_and_continuation_is_understood() -> None:
    text = """
# a comment
old   package bullseye linux-*-amd64   # another
      has A B_2
built path ../linux
small build trixie linux-source-6.12
new   path /boot/x   has +old
      C
[later]
here  running has
"""
    assert kernels.parse(text, LIST) == [
        Kernel("old", Package("bullseye", "linux-*-amd64"), ("A", "B_2")),
        Kernel("built", Path("/lists/../linux"), None),
        Kernel("small", LinuxSource("trixie", "linux-source-6.12"), None),
        Kernel("new", Path("/boot/x"), ("A", "B_2", "C")),
        Kernel("here", Running(), (), "later"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("k", "/lists/kernels.txt:1: expected `package SUITE PATTERN`, `build SUITE PACKAGE`, "),
        ("\n# c\nk package sid", "kernels.txt:3: expected `package"),
        ("k paht /x", "found 'paht /x'"),
        ("a/b path /x", "'a/b' is no name"),
        ("k path /x\nk path /y", "kernels.txt:2: k is already named above"),
        ("k path /x has wpu", "'wpu' is no feature"),
        ("k path /x has +j", "+j: no kernel of this name above"),
    ],
)
def test_a_malformed_line_is_named(text: str, complaint: str) -> None:
    with pytest.raises(VmError) as raised:
        kernels.parse(text, LIST)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_kernels_are_chosen_by_name_pattern_and_path(tmp_path: Path) -> None:
    listed = kernels.parse("a-1 running\na-2 running\nb running\n[g]\nc-1 running", LIST)
    assert [k.name for k in kernels.choose(listed, ["b", "a-*", "b"])] == ["b", "a-1", "a-2"]
    assert [k.name for k in kernels.choose(listed, ["g"])] == ["c-1"]
    tree = tmp_path / "linux-next"
    image = tree / "arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    image.touch()
    assert [k.name for k in kernels.choose(listed, [str(image)])] == ["linux-next"]
    with pytest.raises(VmError, match=r"no such kernel: c \(listed: a-1, a-2, b"):
        kernels.choose(listed, ["c"])


# -- files


def test_what_is_no_bzimage_is_said_to_be_none(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with pytest.raises(VmError, match="doesn't exist"):
        kernels.at(image)
    image.write_bytes(b"\x7fELF" + bytes(1 << 16))
    with pytest.raises(VmError, match="is no x86 bzImage"):
        kernels.at(image)
    with pytest.raises(VmError, match="no kernel"):
        kernels.at(tmp_path)


def test_modules_are_loaded_after_what_they_need(tmp_path: Path) -> None:
    needs = {"9p": "9pnet,netfs", "9pnet-virtio": "virtio,9pnet", "9pnet": "", "netfs": ""}
    for name, depends in needs.items():
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF\0depends=%s\0" % depends.encode())
    files = {path.stem.replace("-", "_"): path for path in tmp_path.iterdir()}
    assert list(modules.ordered(files)) == ["9pnet", "9pnet_virtio", "netfs", "9p"]


def test_a_package_divided_in_parts_is_fetched_with_them() -> None:
    entry = packages.Entry(
        "linux-image-7.3",
        "7.3.4-1",
        "kmod, linux-base (>= 4.3~), linux-binary-7.3 (= 7.3.4-1), linux-modules-7.3 (= 7.3.4-1)",
    )
    apt = packages.Apt.__new__(packages.Apt)
    assert [part.name for part in apt.parts(entry)] == ["linux-binary-7.3", "linux-modules-7.3"]


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").write_text("content")
    (tmp_path / "link").symlink_to("real")
    made = io.BytesIO()
    archive = initramfs.Archive(made)
    archive.add(tmp_path / "link" / "file")
    archive.text("/plan.json", b"{}")
    archive.close()
    names = [entry.partition(b"\0")[0].decode() for entry in made.getvalue().split(b"070701")[1:]]
    names = [name[104:] for name in names]
    inside = str(tmp_path).lstrip("/")
    assert f"{inside}/link" in names
    assert f"{inside}/real/file" in names
    assert f"{inside}/link/file" not in names
    assert names[-2:] == ["plan.json", "TRAILER!!!"]


# -- streams


def test_a_garbled_stream_gives_what_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "stream.jsonl"
    tail = Tail(file)
    assert tail.news() == []
    file.write_bytes(
        b'{"event": "start", "id": "a"}\n\x00\xff\xfe garbage\n[1]\n{"event": 1}\n{"event": "resu'
    )
    assert [event["event"] for event in tail.news()] == ["start", *[GARBLED] * 3]
    with file.open("ab") as more:
        more.write(b'lt", "id": "a", "state": "passed"}\n{"event": "sta')
    assert [event["event"] for event in tail.news()] == ["result"]
    assert tail.news() == []
    assert [event["event"] for event in tail.news(over=True)] == [GARBLED]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    kernel = Kernel("k", Path("/k"), ("WP_ASYNC", "MOVE"))
    return Campaign(kernel, tmp_path / "k")


def test_a_lost_guests_cases_are_crashed(campaign: Campaign) -> None:
    campaign.take({"event": "plan", "ids": ["a", "b"]})
    campaign.take({"event": "run", "kernel": {"features": ["WP_ASYNC", "POISON"]}})
    for event in ("start", "result"):
        campaign.take({"event": event, "id": "a", "state": "passed"})
    campaign.take({"event": "start", "id": "b"})
    campaign.lost(Loss("panic", "Fatal exception", "a trace"), ["b"], 1)
    campaign.verdict()
    events = read(campaign.folder / "stream.jsonl")
    assert [e["event"] for e in events] == [
        "plan", "run", "start", "result", "start", "lost", "result", "verdict",
    ]  # fmt: skip
    lost, crashed, verdict = events[-3:]
    assert lost["in_flight"] == ["b"]
    assert crashed["state"] == "crashed"
    assert crashed["reason"] == "the guest was lost (panic): Fatal exception"
    assert crashed["evidence"] == lost["console"] == "a trace"
    assert (verdict["missing"], verdict["extra"]) == (["MOVE"], ["POISON"])
    assert in_flight(events) == []
    assert "2 of 2  1 failed  1 guest lost" in line(campaign, 3).plain


def test_a_kernel_without_files_is_an_error_on_record(campaign: Campaign) -> None:
    campaign.unbootable("no such package")
    lost, verdict = read(campaign.folder / "stream.jsonl")
    assert (lost["reason"], lost["in_flight"]) == ("no boot", [])
    assert verdict["missing"] == ["WP_ASYNC", "MOVE"]


# -- progress


def told(campaign: Campaign, *, quiet: bool = False, **console: Any) -> str:
    """What is said of a kernel that has lost a guest and is done."""
    campaign.take({"event": "plan", "ids": ["a", "b"]})
    campaign.take({"event": "result", "id": "a", "state": "passed"})
    out = io.StringIO()
    console = {"width": 80, "highlight": False} | console
    progress = Progress([campaign], quiet=quiet, console=Console(file=out, **console))
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(progress.show(), 0.1))
    campaign.lost(Loss("panic", "Fatal [exception]", ""), ["b"], 1)
    campaign.verdict()
    progress.end()
    return out.getvalue()


def test_a_log_gets_plain_lines(campaign: Campaign) -> None:
    assert told(campaign).splitlines() == [
        "k  runs  1 of 2",
        "k: panic during b: Fatal [exception]",
        "k  done  2 of 2  1 failed  1 guest lost  in 0 s",
    ]


def test_a_terminal_gets_a_live_line(campaign: Campaign) -> None:
    text = told(campaign, force_terminal=True)
    assert "━━━" in text
    assert "\x1b[31m1 failed" in text
    assert "k: panic during b: Fatal [exception]\n" in text


@pytest.mark.parametrize("without", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_no_more_is_asked_of_a_terminal_than_it_takes(
    campaign: Campaign, without: dict[str, str]
) -> None:
    text = told(campaign, force_terminal=True, _environ=without)
    assert "1 failed" in text
    assert "\x1b[31m" not in text
    assert ("\x1b" in text) == ("NO_COLOR" in without)  # which is no word against redrawing


def test_quiet_tells_what_befell_guests(campaign: Campaign) -> None:
    text = told(campaign, quiet=True, force_terminal=True)
    assert text == "k: panic during b: Fatal [exception]\n"


# -- the command


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nosuch"], "no such kernel: nosuch"),
        (["--kernels", "/nosuch"], "can't read the list of kernels"),
        (["--results", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("run-in-vm.sh: ")
    assert complaint in said


def test_skip_done_and_shard_leave_cases_out(tmp_path: Path) -> None:
    def collected(*arguments: str) -> list[str]:
        collect = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--collect-only"]
        done = subprocess.run(
            [*collect, "uffd_tests/test_api.py", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [name for name in done.stdout.splitlines() if "::" in name]

    every = collected()
    shards = [collected(f"--shard={number}/3") for number in (1, 2, 3)]
    assert sorted(name for shard in shards for name in shard) == sorted(every)
    stream = tmp_path / "stream.jsonl"
    event = {"event": "result", "id": "api.asking_for_nothing_answers_all", "state": "passed"}
    stream.write_text(json.dumps(event) + "\n")
    assert set(every) - set(collected(f"--skip-done={stream}")) == {
        "uffd_tests/test_api.py::test_asking_for_nothing_answers_all"
    }
