# SPDX-License-Identifier: GPL-2.0-only
"""Real guests that panic, fall silent and are killed, and runs that are broken off.

Minutes of emulation: `make drills` runs them, `make test` doesn't. They boot debian-6.12, or the
kernel that the variable UFFD_WP_DRILL_KERNEL names.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from helpers import machine, programs, reproducer
from helpers.model import Op
from helpers.programs import WORLDS
from helpers.stream import in_flight, read
from helpers.subject import Subject
from vm.alone import SKIP

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parent.parent
KERNEL = os.environ.get("UFFD_WP_DRILL_KERNEL", "debian-6.12")
SECONDS = 600


def start(results: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vm", "--results", str(results), *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def qemus(results: Path) -> dict[int, str]:
    """The QEMU processes that serve a run, with their command lines."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if command.startswith("qemu-system") and str(results) in command:
            found[int(entry.parent.name)] = command
    return found


def wait_for(condition: Any, seconds: float = SECONDS) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError("what was waited for didn't come")


class Drill:
    """The finished run of the misfortunes."""

    def __init__(self, results: Path) -> None:
        drill = "tests/drills/test_guest_misfortunes.py"
        process = start(results, "--silence", "30", KERNEL, "--", drill)
        try:
            wait_for(lambda: self._kill(results) or process.poll() is not None)
            _, self.said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        self.status = process.returncode
        (self.folder,) = results.glob("vm-*/*/")
        self.events = read(self.folder / "stream.jsonl")
        self.results = {e["id"].split(".")[1]: e for e in self.events if e["event"] == "result"}
        self.left = qemus(results)

    def _kill(self, results: Path) -> bool:
        """Kills the guest whose case waits for it."""
        for stream in results.glob("vm-*/*/guest-*/stream.jsonl"):
            if any(name.endswith(".the_guest_is_killed") for name in in_flight(read(stream))):
                (pid,) = (p for p, line in qemus(results).items() if f"{stream.parent}," in line)
                os.kill(pid, signal.SIGKILL)
                return True
        return False


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("drill"))


@pytest.mark.parametrize(
    ("case", "state", "reason"),
    [
        ("the_kernel_is_tainted", "failed", "the kernel's taint flags went from"),
        ("before_the_silence", "passed", ""),
        ("the_kernel_panics", "crashed", "(panic): sysrq triggered crash"),
        ("after_the_panic", "passed", ""),
        ("the_guest_falls_silent", "crashed", "(hang): nothing was heard of it"),
        ("after_the_silence", "passed", ""),
        ("the_guest_is_killed", "crashed", "(lost): QEMU ended"),
        ("after_the_kill", "passed", ""),
        ("the_worker_exits", "crashed", "(lost): pytest ended with exit code 7"),
    ],
)
def test_each_case_has_its_result(drill: Drill, case: str, state: str, reason: str) -> None:
    assert drill.results[case]["state"] == state
    assert reason in drill.results[case]["reason"]


def test_one_tests_panics_do_not_cost_the_others_their_results(drill: Drill) -> None:
    each = [e for e in drill.events if e["event"] == "result" and "panics_each_time" in e["id"]]
    reasons = sorted(result["reason"].partition(":")[0] for result in each)
    assert reasons == ["never ran"] * 2 + ["the guest was lost (panic)"] * 4
    assert drill.results["after_many_panics"]["state"] == "passed"


def test_a_panic_leaves_its_evidence(drill: Drill) -> None:
    assert "Kernel panic - not syncing" in drill.results["the_kernel_panics"]["evidence"]
    assert "Call Trace" in drill.results["the_kernel_panics"]["evidence"]


def test_a_hang_shows_where_the_kernel_was(drill: Drill) -> None:
    assert "NMI" in drill.results["the_guest_falls_silent"]["evidence"]


def test_the_run_tells_of_all_losses_and_fails(drill: Drill) -> None:
    lost = [event for event in drill.events if event["event"] == "lost"]
    assert sorted(event["reason"] for event in lost) == ["hang", "lost", "lost", *["panic"] * 5]
    assert all(len(event["in_flight"]) == 1 for event in lost)
    assert drill.status == 1
    assert drill.events[-1]["event"] == "verdict"
    assert in_flight(drill.events) == []


def test_a_splat_after_the_last_case_is_on_record(drill: Drill) -> None:
    splats = [event["lines"] for event in drill.events if event["event"] == "splat"]
    assert any("taint flags" in line for lines in splats for line in lines)


def test_no_guest_is_left(drill: Drill) -> None:
    assert drill.left == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_broken_off_leaves_no_guest(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, KERNEL)
    wait_for(lambda: qemus(tmp_path))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    wait_for(lambda: not qemus(tmp_path), seconds=60)  # in which no guest ends by itself
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert said.splitlines()[-1].startswith("run-in-vm.sh: interrupted; what was done is in")
        assert "Traceback" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk: run as root")
def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", tmp_path], check=True)
    try:
        process = start(tmp_path, KERNEL)
        wait_for(lambda: list(tmp_path.glob("vm-*/*/guest-*/stream.jsonl")))
        with suppress(OSError):
            (tmp_path / "filling").write_bytes(bytes(12 << 20))
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 2
        assert "run-in-vm.sh: can't keep results in" in said.splitlines()[-1]
        assert not qemus(tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_what_does_not_boot_is_an_error_on_record(tmp_path: Path) -> None:
    image = tmp_path / "garbage"
    # the head of a bzImage of protocol 2.10, and nothing behind it
    head = bytearray(64 << 10)
    head[0x1F1], head[0x1FE:0x200], head[0x202:0x206] = 1, b"\x55\xaa", b"HdrS"
    head[0x206:0x208], head[0x20E:0x210] = b"\x0a\x02", (0x3000).to_bytes(2, "little")
    head[0x3200:0x3210] = b"0.0.1-garbage #1"
    image.write_bytes(head)
    process = start(tmp_path, "--limit", "0.2", str(image))
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert re.search("^garbage: (no boot|limit): ", said, re.MULTILINE)
    (stream,) = tmp_path.glob("vm-*/garbage/stream.jsonl")
    assert "lost" in [event["event"] for event in read(stream)]
    assert not qemus(tmp_path)


def test_a_reproducer_is_enough_for_a_guest(tmp_path: Path) -> None:
    stream = f"--stream={tmp_path}/stream.jsonl"
    case = ["--case", "*wrong_expectation*", "tests/drills/test_misfortunes.py"]
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", stream]
    subprocess.run([*pytest_command, *case], cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    (source,) = (tmp_path / "repro").iterdir()
    assert alone(source) == 1


def test_a_reproducer_that_swaps_finds_zram_there(tmp_path: Path) -> None:
    (world,) = [world for world in WORLDS if world.name == "mixed_reclaim"]
    root = Subject.spawn(SECONDS)
    subject = root.fork()
    program = [Op("store", 0, 1, 3), Op("pageout", 0, 1), Op("load", 0)]
    list(programs.run_slowly(subject, machine.probe(root), world, program))
    source = tmp_path / "swaps.c"
    reproducer.write(source, subject, "a page goes to swap and comes back")
    root.close()
    assert alone(source) != SKIP  # whether the page goes is the kernel's choice


def alone(source: Path) -> int:
    """The exit status of a C file as the only program of a guest."""
    program = source.with_suffix("")
    subprocess.run(["cc", "-static", "-o", program, source, "-pthread"], check=True)
    command = [sys.executable, "-m", "vm.alone", KERNEL, str(program)]
    return subprocess.run(command, cwd=ROOT, check=False, timeout=SECONDS).returncode
