# SPDX-License-Identifier: GPL-2.0-only
"""The result stream as a file that many processes append to and that may be cut short."""

from multiprocessing import Process
from pathlib import Path

from helpers.stream import Stream, in_flight, read


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
