"""Logs back as samples: whole, once each, from anywhere, whatever is damaged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from controller_builders import hello_of
from governor_protos.messages import EndReason
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_builders import book_at, origin_of, step_of, write_log

from controller_service.learning.model import EngineKey
from controller_service.logbook import opened, sources
from controller_service.logbook.reading import (
    BadSource,
    list_files,
    read_ends,
    read_files,
    read_samples,
)


def test_samples_come_back_as_they_were_measured(tmp_path):
    write_log(tmp_path, 50)
    ((origin, samples),) = read_samples([str(tmp_path)])
    assert origin.engine == EngineKey("a/model", "", 1, "0.5.17")
    assert (origin.engine_id, origin.incarnation, origin.rows) == ("engine-1", "a", 50)
    assert origin.graph_rows == ()
    assert samples.rows.tolist() == [step % 8 + 1 for step in range(50)]
    assert samples.latency_s == pytest.approx([0.005 + 0.001 * (s % 10) for s in range(50)])
    assert samples.rows.dtype == samples.latency_s.dtype == np.float64


def test_only_what_teaches_is_a_sample(tmp_path):
    book = book_at(tmp_path)
    book.start()
    log = book.open(hello_of())
    log.step(step_of(1, rows=3), 0.0)
    log.step(step_of(2, latency_s=0.0), 0.0)
    log.step(step_of(3, kind=1, rows=0, prefill_tokens=0), 0.0)
    log.step(step_of(4, kind=1, rows=0, prefill_tokens=512), 0.0)
    log.step(step_of(5, kind=9, rows=5), 0.0)
    log.step(step_of(6, kind=2, rows=7, prefill_tokens=64, draft_tokens=2), 0.0)
    book.close()
    ((_, samples),) = read_samples([str(tmp_path)])
    assert samples.rows.tolist() == [3, 0, 7]
    assert samples.prefill_tokens.tolist() == [0, 512, 64]
    assert samples.draft_tokens.tolist() == [0, 0, 2]


def test_engines_and_starts_are_told_apart(tmp_path):
    for engine, start, steps in (("one", "a", 5), ("one", "b", 6), ("two", "a", 7)):
        write_log(tmp_path, steps, engine, start)
    whole = {(o.engine_id, o.incarnation): len(s) for o, s in read_samples([str(tmp_path)])}
    assert whole == {("one", "a"): 5, ("one", "b"): 6, ("two", "a"): 7}
    assert sum(len(samples) for _, samples in read_samples([str(tmp_path)], "one")) == 11
    assert list(read_samples([str(tmp_path)], "three")) == []


def test_since_leaves_out_what_is_older(tmp_path):
    write_log(tmp_path, 5)
    now = datetime.now(UTC)
    for age, count in ((timedelta(hours=1), 5), (timedelta(hours=-1), 0)):
        ((origin, samples),) = read_samples([str(tmp_path)], since=now - age)
        assert (origin.rows, len(samples)) == (5, count)


def test_sources_may_be_folders_files_and_urls_of_either(tmp_path):
    write_log(tmp_path, 5, ends=3)
    (path,) = list_files([str(tmp_path)])
    memory = fsspec.filesystem("memory")
    memory.makedirs("/bucket/steps/engine=engine-1", exist_ok=True)
    memory.pipe(f"/bucket/steps/engine=engine-1/{Path(path).name}", Path(path).read_bytes())
    try:
        for source in (
            str(tmp_path),
            str(tmp_path / "steps"),
            str(Path(path).parent),
            path,
            f"file://{tmp_path}",
            f"file://{path}",
            "memory://bucket",
        ):
            ((origin, samples),) = read_samples([source])
            assert (len(samples), Path(origin.path).name) == (5, Path(path).name)
            # What is listed can be read again, one by one, elsewhere.
            (listed,) = list_files([source])
            assert [len(samples) for _, samples in read_samples([listed])] == [5]
        assert len(list_files([str(tmp_path), path])) == 1
        assert len(read_ends([str(tmp_path)])) == 3
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("source", ["missing", "nosuch://x", "file:///missing"])
def test_a_source_that_is_not_there_is_named(tmp_path, source, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSource, match=source):
        list_files([source])


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    write_log(tmp_path, 1)
    monkeypatch.setattr(sources, "MAX_FILES", 0)
    with pytest.raises(BadSource, match="more than 0 files"):
        list_files([str(tmp_path)])


def test_ends_come_back_as_columns(tmp_path):
    write_log(tmp_path, 0, "one", ends=6)
    write_log(tmp_path, 0, "two", ends=2)
    ends = read_ends([str(tmp_path)], "one")
    assert len(ends) == 6
    stopped, length, aborted = (int(reason) for reason in EndReason)
    assert ends.reason.tolist() == [stopped, length, aborted, aborted, stopped, length]
    assert (ends.prompt_tokens[0], ends.output_tokens[0], ends.max_new_tokens[0]) == (100, 20, 64)
    assert (ends.draft_tokens[0], ends.accepted_tokens[0], ends.age_s[0]) == (8, 6, 1.5)
    assert len(read_ends([str(tmp_path)])) == 8
    assert len(read_ends([str(tmp_path)], "nobody")) == 0


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path):
    for engine in ("one", "two", "three"):
        write_log(tmp_path, 5, engine)
    (damaged,) = (path for path in list_files([str(tmp_path)]) if "engine=two" in path)
    Path(damaged).write_bytes(Path(damaged).read_bytes()[:-20])
    told = []
    engines = [
        origin.engine_id for origin, _ in read_samples([str(tmp_path)], on_damage=told.append)
    ]
    assert sorted(engines) == ["one", "three"]
    assert [damage.path for damage in told] == [damaged]
    assert told[0].reason
    assert len(list(read_files([str(tmp_path)], on_damage=told.append))) == 2
    assert len(told) == 2


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    write_log(folder, 40)
    return Path(list_files([str(folder)])[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_told_or_does_no_harm(sound, tmp_path, data):
    """Wherever a file is cut or changed: the samples of before, or a damage that names it."""
    whole = sound.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        text = whole[:at]
    else:
        text = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    file = tmp_path / sound.name
    file.write_bytes(text)
    told = []
    found = list(read_samples([str(file)], on_damage=told.append))
    assert len(found) + len(told) == 1
    if found:
        ((_, samples),) = found
        assert len(samples) <= 40
        assert np.isfinite(samples.latency_s).all()


def foreign(schema: pa.Schema | None = None, metadata: dict | None = None) -> pa.Table:
    table = pa.table({"rows": [1, 2]}) if schema is None else schema.empty_table()
    return table.replace_schema_metadata(metadata)


def test_a_file_that_is_no_log_is_damage(tmp_path):
    from controller_service.logbook.schema import arrow_schema

    ours = origin_of().metadata("steps")
    newer = {b"governor": ours[b"governor"].replace(b'"schema_version":1', b'"schema_version":9')}
    short = arrow_schema("steps").remove(3)
    cases = {
        "foreign": (foreign(), "not a file of Governor's log"),
        "newer": (foreign(arrow_schema("steps"), newer), "written as version 9"),
        "other": (
            foreign(arrow_schema("requests"), origin_of().metadata("requests")),
            "it holds requests, not steps",
        ),
        "short": (foreign(short, ours), "column 'outcome' is missing"),
    }
    for name, (table, _) in cases.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "text.parquet").write_text("rows")
    (tmp_path / "empty.parquet").write_bytes(b"")
    told = {}
    found = read_samples(
        [str(tmp_path)], on_damage=lambda damage: told.update({Path(damage.path).stem: damage})
    )
    assert list(found) == []
    assert sorted(told) == sorted([*cases, "text", "empty"])
    for name, (_, reason) in cases.items():
        assert reason in told[name].reason


def test_a_file_too_large_is_damage(tmp_path, monkeypatch):
    write_log(tmp_path, 5)
    for limit, reason in (("MAX_FILE_BYTES", "larger than"), ("MAX_FILE_ROWS", "more than")):
        told = []
        with monkeypatch.context() as patch:
            patch.setattr(opened, limit, 1)
            assert list(read_samples([str(tmp_path)], on_damage=told.append)) == []
        assert reason in told[0].reason


def test_damage_that_nobody_asks_about_is_logged(tmp_path, caplog):
    write_log(tmp_path, 5)
    (path,) = list_files([str(tmp_path)])
    Path(path).write_bytes(b"")
    assert list(read_samples([str(tmp_path)])) == []
    assert path in caplog.text


def test_a_copy_of_the_folder_reads_like_the_folder(tmp_path):
    write_log(tmp_path / "log", 12, "a/../b")
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    for folder in ("log", "copy"):
        ((origin, samples),) = read_samples([str(tmp_path / folder)])
        assert (origin.engine_id, len(samples)) == ("a/../b", 12)


def test_a_controller_without_a_log_loads_neither_pyarrow_nor_duckdb():
    code = (
        "import sys, controller_service.app, controller_service.commands.serve;"
        "print(*sorted({'pyarrow', 'duckdb', 'fsspec', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_writing_a_log_does_not_load_pandas(tmp_path):
    """Its import takes more than a second of the interpreter that decides."""
    code = (
        "import sys, pathlib; sys.path[:0] = sys.argv[2:];"
        "from log_builders import write_log;"
        "write_log(pathlib.Path(sys.argv[1]), 20, ends=3);"
        "print('pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    here = Path(__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(here), str(here.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["True", "False"]
