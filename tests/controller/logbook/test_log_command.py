"""``governor log``: filters, SQL that reads the log and nothing else, exports, figures."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from controller_builders import hello_of
from governor_protos.messages import Outcome
from hypothesis import given
from hypothesis import strategies as st
from log_builders import book_at, decision_of, end_of

from controller_service.cli import main
from controller_service.logbook.figures import errors, outcomes
from controller_service.logbook.moments import parse_moment
from controller_service.logbook.query import BadFilter, Filter, Log
from controller_service.logbook.reading import list_files
from controller_service.records import Expectation, StepLog

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """100 steps of ``one`` (10 ms measured, 11 ms expected) and 10 prefills of ``two``."""
    from controller_builders import feedback_of

    where = tmp_path_factory.mktemp("log")
    book = book_at(where, buffer_rows=256)
    book.start()
    one, two = book.open(hello_of("one")), book.open(hello_of("two"))
    joined = StepLog()
    for step in range(100):
        governed = step % 4
        outcome = Outcome.LATE if step % 20 == 1 else Outcome.APPLIED
        if governed:
            policy = "cap:2" if step % 2 else "taper:rho=0.5"
            joined.decided(decision_of(step, policy=policy))
        feedback = feedback_of(
            step,
            rows=step % 9 + 1,
            latency_s=0.014 if step % 10 == 0 else 0.01,
            outcome=int(outcome if governed else Outcome.UNGOVERNED),
        )
        record = joined.finished(feedback, Expectation(0.011, 0.012, "linear", 3))
        one.step(record, float(step))
    for step in range(10):
        two.step(joined.finished(feedback_of(step, rows=0, kind=1, prefill_tokens=9)), 0.0)
    one.end(end_of(1, reason=1), 0.0)
    book.close()
    return where


def run(*arguments: str, **environment: str):
    return CliRunner().invoke(
        main, ["log", *arguments], env={"GOVERNOR_LOG_DIR": None} | environment
    )


def exported(folder: Path, *arguments: str) -> list[dict]:
    answer = run("export", str(folder), "-o", "-", "--format", "jsonl", *arguments)
    assert answer.exit_code == 0, answer.output
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ([], 110),
        (["--engine", "one"], 100),
        (["--engine", "nobody"], 0),
        (["--kind", "prefill"], 10),
        (["--outcome", "late"], 5),
        (["--policy", "cap:2"], 50),
        (["--policy", "cap"], 50),
        (["--policy", "taper", "--kind", "decode"], 25),
        (["--where", "rows > 8 and engine = 'one'"], 11),
        (["--where", "latency_s > expected_s"], 10),
        (["--where", "policy is null"], 35),
        (["--where", "rows = (select max(rows) from log)"], 11),
        (["--since", "1h"], None),
        (["--until", "2000-01-01"], 0),
    ],
)
def test_filters_let_through_what_they_say(folder, arguments, count):
    found = exported(folder, *arguments)
    if count is None:  # the clock of these records is the test's own
        count = sum(
            datetime.fromisoformat(row["time"]) > datetime.now(UTC) - timedelta(hours=1)
            for row in exported(folder)
        )
    assert len(found) == count


def test_since_and_until_meet_without_gap_or_overlap(folder):
    middle = exported(folder, "--engine", "one")[40]["time"].removesuffix("Z")
    before = exported(folder, "--engine", "one", "--until", middle)
    after = exported(folder, "--engine", "one", "--since", middle)
    assert [row["step"] for row in before + after] == list(range(100))
    assert len(before) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "rows >"], "--where 'rows >': Parser Error"),
        (["--where", "1) ; drop table log; select (1"], "Parser Error"),
        (["--where", "nope = 1"], "nope"),
        (["--where", "kind = (select content from read_text('/etc/hostname'))"], "disabled"),
        (["--where", "rows in (select 1 from read_csv('/etc/passwd'))"], "disabled"),
        (["--where", "rows in (select a from glob('/*') g(a))"], "disabled"),
        (["--where", "rows > (select count(*) from 'http://127.0.0.1/x.parquet')"], ""),
        (["--where", "rows = 'many'"], "many"),
        (["--columns", "step,row"], "no column 'row'; did you mean 'rows'?"),
        (["--since", "yesterday"], "--since: 'yesterday' is neither"),
        (["--until", "10"], "--until: '10' is neither"),
        (["--kind", "decoded"], "--kind decoded: expected one of decode, prefill"),
        (["--outcome", "early"], "--outcome early: expected one of applied"),
        (["--table", "requests", "--policy", "cap"], "--policy: requests have none"),
        (["--engine", "nobody"], "none of that engine"),
        (["--where", "rows > 1000"], "no record passes"),
    ],
)
def test_a_bad_filter_is_one_line_that_says_why(folder, arguments, message):
    answer = run("show", str(folder), *arguments)
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert answer.stderr.startswith("Error: ")
    assert "Traceback" not in answer.output
    assert answer.stdout == ""


def test_sql_cannot_write_or_unlock(folder, tmp_path):
    log = Log([str(folder)], Filter())
    target = tmp_path / "out.csv"
    for sql in (
        f"COPY log TO '{target}'",
        "SET lock_configuration = false",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        f"ATTACH '{tmp_path}/x.db'",
    ):
        with pytest.raises(duckdb.Error):
            log._connection.execute(sql)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadFilter):
        Log([str(folder)], Filter(where=f"1); COPY log TO '{target}' --")).rows()


def test_show_is_a_table_of_the_newest_oldest_first(folder):
    answer = run(
        "show", str(folder), "--engine", "one", "--last", "3", "--columns", "step,latency_s"
    )
    lines = [line.split() for line in answer.stdout.splitlines() if line.strip()]
    assert lines[0] == ["step", "latency,", "ms"]
    assert lines[2:] == [["97", "10.000"], ["98", "10.000"], ["99", "10.000"]]
    every = run("show", str(folder), "--columns", "all")
    assert "waiting_prefill_tokens" in every.stdout
    ends = run("show", str(folder), "--table", "requests")
    assert "length" in ends.stdout


def test_the_folder_may_come_from_the_environment(folder):
    assert run("show", GOVERNOR_LOG_DIR=str(folder)).exit_code == 0
    nowhere = run("show")
    assert (nowhere.exit_code, "or set GOVERNOR_LOG_DIR" in nowhere.stderr) == (1, True)
    missing = run("show", "/no/such/log")
    assert "/no/such/log: no such file or folder" in missing.stderr


def test_exports_hold_the_same_records(folder, tmp_path):
    for form in ("parquet", "csv", "jsonl"):
        target = tmp_path / f"steps.{form}"
        answer = run("export", str(folder), "-o", str(target), "--columns", "engine,step,rows")
        assert (answer.exit_code, answer.stderr) == (0, "110 records\n")
    table = pq.read_table(tmp_path / "steps.parquet").to_pylist()
    with (tmp_path / "steps.csv").open(newline="") as file:
        as_csv = [
            {**row, "step": int(row["step"]), "rows": int(row["rows"])}
            for row in csv.DictReader(file)
        ]
    as_json = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert table == as_csv == as_json
    assert len(table) == 110
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".jsonl", ".parquet"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "steps.xlsx"], "add --format"),
        (["-o", "-", "--format", "parquet"], "not for standard output"),
        (["-o", "/no/such/steps.csv"], "/no/such/steps.csv: cannot be written (No such file"),
        (["-o", "steps.csv", "--where", "rows = 'x'"], "Could not convert"),
    ],
)
def test_an_export_that_cannot_be_leaves_nothing(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    answer = run("export", str(folder), *arguments)
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_engines_are_listed_with_what_they_are(folder):
    answer = run("engines", str(folder))
    lines = {line.split()[0]: line.split() for line in answer.stdout.splitlines() if line.strip()}
    assert lines["one"][1] == "a/model"
    assert "100" in lines["one"]
    assert "10" in lines["two"]


def test_stats_count_outcomes_and_errors(folder):
    log = Log([str(folder)], Filter(engine="one"))
    counted = {row["outcome"]: (row["steps"], row["share"]) for row in outcomes(log)}
    assert counted == {
        "applied": (70, pytest.approx(70 / 75)),
        "late": (5, pytest.approx(5 / 75)),
        "ungoverned": (25, None),
    }
    found = errors(log)
    assert [row["most_rows"] for row in found] == [1, 2, 4, 8, 16]
    assert sum(row["steps"] for row in found) == 100
    covered = sum(row["steps"] * row["p90_coverage"] for row in found)
    assert covered == pytest.approx(90)
    error = sum(row["steps"] * row["mape"] for row in found) / 100
    assert error == pytest.approx(0.9 * 0.1 + 0.1 * (1 - 11 / 14), rel=1e-3)
    shown = run("stats", str(folder))
    assert "6.7%" in shown.stdout
    assert "9-16" in shown.stdout


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path):
    from log_builders import write_log

    write_log(tmp_path, 5, "one")
    write_log(tmp_path, 5, "two")
    damaged = next(path for path in list_files([str(tmp_path)]) if "engine=two" in path)
    Path(damaged).write_bytes(b"PAR1")
    answer = run("show", str(tmp_path))
    assert answer.exit_code == 0
    assert f"skipped {damaged}: " in answer.stderr
    assert answer.stdout.count(" one ") == 5


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", NOW - timedelta(minutes=10)),
        ("1.5h", NOW - timedelta(minutes=90)),
        ("2d", NOW - timedelta(days=2)),
        ("90 s", NOW - timedelta(seconds=90)),
        ("999999999d", datetime.min.replace(tzinfo=UTC)),
        ("2026-01-31", NOW.replace(hour=0)),
        ("2026-01-31T13:00+01:00", NOW),
    ],
)
def test_moments_are_ages_or_iso_times(text, moment):
    assert parse_moment(text, NOW) == moment


@given(st.text(max_size=20))
def test_any_text_is_a_moment_or_an_error_that_says_why(text):
    try:
        assert parse_moment(text, NOW).tzinfo is not None
    except ValueError as error:
        assert "neither an age" in str(error)
