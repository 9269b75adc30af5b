"""One definition of the columns: in memory, in files, in the document."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from controller_builders import hello_of
from governor_protos.messages import Outcome, StepKind
from log_builders import book_at, decision_of, end_of, step_of

from controller_service.logbook.origin import NotALog, Origin, read_origin
from controller_service.logbook.reading import list_files
from controller_service.logbook.schema import TABLES, arrow_schema, arrow_table, buffer_dtype

DOCUMENT = Path(__file__).parents[3] / "docs/decision-log.md"


def one_step(folder: Path, record: object) -> dict[str, object]:
    book = book_at(folder)
    book.start()
    book.open(hello_of()).step(record, time.monotonic())
    book.close()
    (path,) = list_files([str(folder)])
    (row,) = pq.read_table(path).to_pylist()
    return row


@pytest.mark.parametrize("table", TABLES)
def test_the_document_lists_every_column_as_it_is(table):
    wanted = [f"| `{c.name}` | {c.stored} | {c.text} |" for c in TABLES[table]]
    text = DOCUMENT.read_text()
    heading = text.index(f"`{table}`:")
    listed = re.findall(r"^\| `.*$", text[heading:].split("\n\n", 2)[1], re.MULTILINE)
    assert listed == wanted


def test_a_record_is_stored_value_by_value(tmp_path):
    before = time.time()
    row = one_step(tmp_path, step_of(41, rows=6, context=900, kind=0, outcome=1, draft_tokens=7))
    assert before - 1 <= row.pop("time").timestamp() <= time.time() + 1
    decision = decision_of(41)
    assert row == pytest.approx(
        {
            "step": 41,
            "kind": "decode",
            "outcome": "late",
            "rows": 6,
            "context_tokens": 900,
            "prefill_tokens": 0,
            "draft_tokens": 7,
            "parked_rows": 0,
            "latency_s": 0.01,
            "predictor": "linear",
            "predictor_version": 3,
            "model_id": "m1",
            "expected_s": 0.011,
            "expected_p90_s": 0.013,
            "decided": True,
            "policy": decision.policy,
            "batch_rows": decision.rows,
            "mandatory_rows": decision.mandatory_rows,
            "extra_rows": decision.extra_rows,
            "decided_parked_rows": decision.parked_rows,
            "predicted_step_s": decision.predicted_step_s,
            "baseline_step_s": decision.baseline_step_s,
            "budget_s": decision.budget_s,
            "slack_s": decision.slack_s,
            "decided_version": decision.predictor_version,
            "kv_used_tokens": decision.kv_used_tokens,
            "kv_total_tokens": decision.kv_total_tokens,
            "waiting_requests": decision.waiting_requests,
            "waiting_prefill_tokens": decision.waiting_prefill_tokens,
        }
    )


def test_what_was_not_decided_is_null_and_not_nought(tmp_path):
    row = one_step(tmp_path, step_of(1, decided=False, kind=int(StepKind.PREFILL)))
    needy = [column.name for column in TABLES["steps"] if column.needs == "decided"]
    assert len(needy) > 10
    assert (row["kind"], row["decided"]) == ("prefill", False)
    assert {row[name] for name in needy} == {None}


def test_words_of_a_newer_engine_are_unknown(tmp_path):
    row = one_step(tmp_path, step_of(1, kind=200, outcome=len(Outcome)))
    assert (row["kind"], row["outcome"]) == ("unknown", "unknown")


def test_an_end_for_an_unknown_reason_counts_as_aborted(tmp_path):
    book = book_at(tmp_path)
    book.start()
    book.open(hello_of()).end(end_of(9, reason=250), 1.0)
    book.close()
    (path,) = list_files([str(tmp_path)], "requests")
    (row,) = pq.read_table(path).to_pylist()
    assert (row["request_id"], row["reason"], row["accepted_tokens"]) == (9, "aborted", 6)


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_buffer_has_the_schema_of_a_file(table):
    empty = arrow_table(table, np.zeros(0, buffer_dtype(table)), [""], 0.0)
    assert (empty.schema, empty.num_rows) == (arrow_schema(table), 0)


def test_a_file_says_whose_steps_it_holds(tmp_path):
    book = book_at(tmp_path)
    book.start()
    book.open(hello_of("a/../b %")).step(step_of(1), 1.0)
    book.close()
    (path,) = list_files([str(tmp_path)])
    assert Path(path).parent.name == "engine=a%2F..%2Fb%20%25"
    origin = read_origin(pq.read_metadata(path).metadata)
    assert (origin.engine_id, origin.incarnation, origin.engine.model) == (
        "a/../b %",
        "a",
        "a/model",
    )


def test_folders_of_engines_stay_short_and_apart():
    names = [Origin.of(hello_of("é" * 200 + end), "0").folder for end in "ab"]
    assert names[0] != names[1]
    assert max(map(len, names)) < 160


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "not a file of Governor's log"),
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b'{"engine_id": 3}', "cannot be read"),
        (b"[" * 70_000, "larger than"),
    ],
)
def test_metadata_that_is_not_ours_is_refused(text, reason):
    with pytest.raises(NotALog, match=reason):
        read_origin(None if text is None else {b"governor": text})
