"""The way from a record to a file: bounded, counted, never waiting, whole or absent."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from controller_builders import hello_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_builders import book_at, end_of, origin_of, step_of, write_log

from controller_service.logbook import shelf as shelves
from controller_service.logbook.names import PartName, covered, parse_name
from controller_service.logbook.reading import list_files, read_samples
from controller_service.logbook.schema import arrow_table, buffer_dtype
from controller_service.logbook.shelf import LogFolderError, Shelf

RUN = "20260101T000000-aaaaaa"


def table_of(steps: range):
    rows = np.zeros(len(steps), buffer_dtype("steps"))
    rows["step"], rows["rows"], rows["latency_s"] = list(steps), 1, 0.01
    return arrow_table("steps", rows, [""], 0.0)


def steps_in(folder: Path) -> list[int]:
    paths = list_files([str(folder)])
    return sorted(step for path in paths for step in pq.read_table(path)["step"].to_pylist())


def held(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def wait_until(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, "it does not happen"
        time.sleep(0.01)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(st.integers(1, 60), st.sampled_from(["stall", "go", "tick", "end"]))),
    st.integers(1, 4),
)
def test_every_record_is_written_or_counted_as_dropped(tmp_path_factory, deeds, buffers):
    folder = tmp_path_factory.mktemp("log")
    may_write = threading.Event()
    book = book_at(folder, buffers=buffers, buffer_rows=16)
    put = book._writer.shelf.put
    book._writer.shelf.put = lambda *args: (may_write.wait(), put(*args))
    book.start()
    log = book.open(hello_of())
    offered = {"steps": 0, "requests": 0}
    now_s = 0.0
    for deed in deeds:
        now_s += 3.0
        if deed == "stall":
            may_write.clear()
        elif deed == "go":
            may_write.set()
        elif deed == "tick":
            book.tick(now_s)
        elif deed == "end":
            log.end(end_of(1), now_s)
            offered["requests"] += 1
        else:
            for _ in range(deed):
                log.step(step_of(offered["steps"]), now_s)
                offered["steps"] += 1
    may_write.set()
    book.close()
    health = book.health()
    assert sum(health.written.values()) + health.dropped["full"] == sum(offered.values())
    assert health.dropped["unwritable"] == health.dropped["invalid"] == 0
    assert len(steps_in(folder)) == health.written["steps"]
    assert len(set(steps_in(folder))) == health.written["steps"]


def test_a_stalled_writer_costs_records_and_no_time(tmp_path):
    may_write = threading.Event()
    book = book_at(tmp_path, buffer_rows=16, buffers=3)
    book._writer.shelf.put = lambda *args: may_write.wait()
    book.start()
    log = book.open(hello_of())
    for step in range(1000):  # would never end if one of them waited
        log.step(step_of(step), 0.0)
    assert book.health().dropped["full"] == 1000 - 3 * 16
    may_write.set()
    wait_until(lambda: book.health().written["steps"] == 48)
    log.step(step_of(1000), 0.0)
    assert book.health().dropped["full"] == 1000 - 48
    book.close()
    assert book.health().written["steps"] == 49


def test_a_buffer_waits_five_seconds_at_most(tmp_path):
    book = book_at(tmp_path)
    book.start()
    book.open(hello_of()).step(step_of(1), 100.0)
    book.tick(104.0)
    assert book._recorders["steps"]._open.used == 1
    book.tick(105.5)
    wait_until(lambda: book.health().written["steps"] == 1)
    book.close()


def test_a_value_that_fits_no_column_costs_its_own_record(tmp_path):
    book = book_at(tmp_path)
    book.start()
    log = book.open(hello_of())
    log.step(step_of(1), 0.0)
    log.step(step_of(2, rows=1 << 40), 0.0)
    log.step(step_of(3), 0.0)
    book.close()
    assert book.health().dropped["invalid"] == 1
    assert steps_in(tmp_path) == [1, 3]


def test_engines_share_buffers_and_not_files(tmp_path):
    book = book_at(tmp_path, buffer_rows=64)
    book.start()
    logs = [book.open(hello_of(name)) for name in ("one", "two")]
    for step in range(40):
        logs[step % 2].step(step_of(step), 0.0)
    book.close()
    found = {origin.engine_id: origin.rows for origin, _ in read_samples([str(tmp_path)])}
    assert found == {"one": 20, "two": 20}


def test_a_full_disk_is_counted_told_once_and_survived(tmp_path, monkeypatch, caplog):
    full = threading.Event()
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    book = book_at(tmp_path, buffer_rows=16, buffers=4)
    book.start()
    log = book.open(hello_of())

    def one_buffer(first: int) -> None:
        done = sum(book.health().written.values()) + book.health().dropped["unwritable"] + 16
        for step in range(first, first + 16):
            log.step(step_of(step), 0.0)
        wait_until(
            lambda: (
                sum(book.health().written.values()) + book.health().dropped["unwritable"] >= done
            )
        )

    with caplog.at_level(logging.INFO, "controller_service.logbook"):
        one_buffer(0)
        full.set()
        for first in (16, 32, 48):
            one_buffer(first)
        assert "No space left" in book.health().error
        full.clear()
        one_buffer(64)
    book.close()
    health = book.health()
    assert (health.written["steps"], health.dropped["unwritable"]) == (32, 48)
    assert (health.write_errors, health.error) == (3, "")
    assert steps_in(tmp_path) == [*range(16), *range(64, 80)]
    assert not list(tmp_path.rglob("*.writing"))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_records_for_which_memory_does_not_suffice_are_counted(tmp_path, monkeypatch):
    tables = "controller_service.logbook.writer.arrow_table"
    book = book_at(tmp_path, buffer_rows=16, buffers=4)
    book.start()
    log = book.open(hello_of())

    def refuse(*args):
        raise MemoryError

    with monkeypatch.context() as exhausted:
        exhausted.setattr(tables, refuse)
        for step in range(16):
            log.step(step_of(step), 0.0)
        wait_until(lambda: book.health().dropped["unwritable"] == 16)
        assert book.health().error == "MemoryError"
    for step in range(16, 32):
        log.step(step_of(step), 0.0)
    book.close()
    assert book.health().error == ""
    assert steps_in(tmp_path) == list(range(16, 32))


def test_what_a_crash_left_half_written_is_removed_and_not_read(tmp_path):
    write_log(tmp_path, 20)
    (whole,) = held(tmp_path)
    leftover = whole.with_name(whole.name.replace("0001.", "0002.") + ".writing")
    leftover.write_bytes(whole.read_bytes()[:100])
    (tmp_path / "steps/notes.txt").write_text("mine")
    foreign = whole.with_name("other.parquet")
    foreign.write_bytes(b"x")
    assert steps_in_sound(tmp_path) == list(range(20))
    book_at(tmp_path)._writer.shelf.close()
    assert not leftover.exists()
    assert whole.exists()
    assert foreign.read_bytes() == b"x"
    assert (tmp_path / "steps/notes.txt").read_text() == "mine"


def steps_in_sound(folder: Path) -> list[int]:
    paths = [path for path in list_files([str(folder)]) if parse_name(Path(path).name)]
    return sorted(step for path in paths for step in pq.read_table(path)["step"].to_pylist())


def test_one_controller_writes_to_a_folder(tmp_path):
    first = Shelf(tmp_path, 64 << 20, RUN)
    with pytest.raises(LogFolderError, match="another controller"):
        Shelf(tmp_path, 64 << 20, RUN)
    first.close()
    Shelf(tmp_path, 64 << 20, RUN).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogFolderError, match=r"file/log: Not a directory; name a folder"):
        Shelf(tmp_path / "file/log", 64 << 20, RUN)


def test_small_files_are_merged_and_every_row_is_read_once_throughout(tmp_path):
    shelf = Shelf(tmp_path, 64 << 20, RUN)
    origin = origin_of()
    for part in range(shelves.MERGE_FILES):
        shelf.put("steps", origin, table_of(range(10 * part, 10 * part + 10)), 1000.0)
    everything = list(range(10 * shelves.MERGE_FILES))
    assert len(held(tmp_path)) == shelves.MERGE_FILES
    assert shelf.keep_house(1001.0)
    # Merged, and the parts are still there for whoever reads them.
    assert len(held(tmp_path)) == shelves.MERGE_FILES + 1
    assert len(list_files([str(tmp_path)])) == 1
    assert steps_in(tmp_path) == everything
    assert not shelf.keep_house(1001.0 + shelves.GRACE_S)
    (merged,) = held(tmp_path)
    assert pq.read_metadata(merged).metadata[b"governor"] == origin.metadata("steps")[b"governor"]
    assert pq.ParquetFile(merged).num_row_groups == 1
    assert steps_in(tmp_path) == everything
    assert shelf.bytes == merged.stat().st_size
    shelf.close()


def test_a_crash_between_merging_and_deleting_leaves_nothing_twice(tmp_path):
    shelf = Shelf(tmp_path, 64 << 20, RUN)
    for part in range(shelves.MERGE_FILES):
        shelf.put("steps", origin_of(), table_of(range(part, part + 1)), 1000.0)
    shelf.keep_house(1000.0)
    shelf.close()
    again = Shelf(tmp_path, 64 << 20, "20260101T000001-bbbbbb")
    assert again.files == len(held(tmp_path)) == 1
    assert steps_in(tmp_path) == list(range(shelves.MERGE_FILES))
    again.close()


def test_parts_of_an_earlier_start_are_merged_few_as_they_are(tmp_path):
    shelf = Shelf(tmp_path, 64 << 20, RUN)
    for part in range(3):
        shelf.put("steps", origin_of(), table_of(range(part, part + 1)), 1000.0)
    assert not shelf.keep_house(1000.0)
    shelf.close()
    again = Shelf(tmp_path, 64 << 20, "20260101T000001-bbbbbb")
    assert again.keep_house(2000.0)
    assert len(list_files([str(tmp_path)])) == 1
    assert steps_in(tmp_path) == [0, 1, 2]
    again.close()


def test_a_damaged_part_is_left_alone_and_the_rest_is_merged(tmp_path, caplog):
    shelf = Shelf(tmp_path, 64 << 20, RUN)
    for part in range(9):
        shelf.put("steps", origin_of(), table_of(range(part, part + 1)), 1000.0)
    damaged = held(tmp_path)[4]
    damaged.write_bytes(b"PAR1 nothing PAR1")
    now_s = 1000.0 + shelves.MERGE_IDLE_S
    for _ in range(5):
        shelf.keep_house(now_s)
    assert len(caplog.records) == 1
    assert damaged.exists()
    sound = [path for path in list_files([str(tmp_path)]) if path != str(damaged)]
    assert len(sound) == 2
    steps = [step for path in sound for step in pq.read_table(path)["step"].to_pylist()]
    assert steps == [0, 1, 2, 3, 5, 6, 7, 8]
    shelf.close()


def test_the_oldest_go_when_the_log_is_full(tmp_path):
    most = 80_000
    shelf = Shelf(tmp_path, most, RUN)
    noise = np.random.default_rng(1)
    for part in range(200):
        rows = np.zeros(100, buffer_dtype("steps"))
        rows["step"], rows["latency_s"] = part, noise.uniform(size=100)
        now_s = 1000.0 + part
        shelf.put("steps", origin_of(), arrow_table("steps", rows, [""], 0.0), now_s)
        shelf.keep_house(now_s)
        on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert shelf.bytes == on_disk <= most
    assert shelf.deleted > 0
    kept = sorted(set(steps_in(tmp_path)))
    assert kept == list(range(kept[0], 200))
    assert kept[0] > 0
    shelf.close()


parts = st.builds(
    lambda first, more: PartName(RUN, "0123456789ab", first, first + more),
    st.integers(1, 12),
    st.integers(0, 8),
)


@given(st.sets(parts, max_size=12))
def test_what_is_covered_is_what_another_covers(names):
    paths = {f"x/{name}": name for name in names}
    wanted = {path for path, name in paths.items() if any(other.covers(name) for other in names)}
    assert covered(paths) == wanted
    assert {parse_name(path[2:]) for path in paths} == set(names)


def test_writer_survives_what_housekeeping_raises(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("controller_service.logbook.writer.HOUSE_EVERY_S", 0.01)
    monkeypatch.setattr("controller_service.logbook.writer.HOUSE_PAUSE_S", 0.01)

    def refuse(self, now_s):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Shelf, "keep_house", refuse)
    book = book_at(tmp_path)
    book.start()
    wait_until(lambda: book.health().write_errors > 2)
    book.open(hello_of()).step(step_of(1), 0.0)
    book.close()
    assert steps_in(tmp_path) == [1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
