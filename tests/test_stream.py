# SPDX-License-Identifier: GPL-2.0-only
"""The result stream as a file that many processes append to and that may be cut short."""

from multiprocessing import Process
from pathlib import Path

from helpers.stream import GARBLED, Stream, in_flight, read


def write_results(path: Path, worker: int) -> None:
    stream = Stream(path)
    for number in range(50):
        stream.write("result", id=f"{worker}.{number}", sync=False, evidence="x" * 2000)
    stream.close()


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "stream.jsonl"
    writers = [Process(target=write_results, args=(path, worker)) for worker in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len({event["id"] for event in read(path)}) == 200


def test_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    stream = Stream(path)
    stream.write("start", id="a", worker="gw0")
    stream.write("result", id="a", state="passed")
    stream.write("start", id="b", worker="gw0")
    stream.close()
    with path.open("a") as file:
        file.write('{"event": "result", "id": "b", "sta')
    assert in_flight(read(path)) == ["b"]


def test_a_damaged_stream_yields_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "stream.jsonl"
    path.write_bytes(
        b'{"event": "start", "id": "a"}\n'
        b'{"event": "result", "id": "a", "sta{"event": "boot", "why": "\xff\x07"}\n'  # cut, resumed
        b'\0\0\0{"event": "result", "id": "b"}\r\n'
        b'{"event": "result"}\n{"event": 1}\n[]\n[[[\n\n'
        b'{"event": "end"} noise'
    )
    events = read(path)
    assert [event["event"] for event in events if event["event"] != GARBLED] == [
        "start",
        "boot",
        "result",
        "end",
    ]
    assert events[2]["why"] == "\ufffd\x07"
    assert [event["text"] for event in events if event["event"] == GARBLED] == [
        '{"event": "result", "id": "a", "sta',
        '{"event": "result"}',
        '{"event": 1}',
        "[]",
        "[[[",
        " noise",
    ]
    assert in_flight(events) == ["a"]
