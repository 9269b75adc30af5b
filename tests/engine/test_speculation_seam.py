"""The seam of speculation, without an engine: whose draft length it is, and accounts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from draft_workers import StockWorker, WithoutController, governed_chains, governed_trees

from sglang_patch.apply.speculation import STOCK, DraftOrder
from sglang_patch.errors import ConfigurationError
from sglang_patch.requests import ALONE
from sglang_patch.rows import RowRecord
from sglang_patch.seams import speculation, versions
from sglang_patch.seams.speculation import Drafted
from sglang_patch.seams.speculation.lengths import TreeLengths, tree_nodes

pytest.importorskip("torch")
pytest.importorskip("sglang")
pytestmark = pytest.mark.skipif(
    not versions.knows_drafts(), reason="drafts are not known of this version of SGLang"
)


@pytest.fixture(params=[StockWorker, WithoutController])
def scheduler(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return governed_chains(request.param, tmp_path)


def steps_of(scheduler: Any, rows: int) -> int:
    scheduler.draft_worker.activate_step_by_batch(rows)
    steps: int = scheduler.draft_worker.speculative_num_steps
    return steps


def test_a_step_drafts_what_was_ordered_or_else_what_the_rule_says(scheduler: Any) -> None:
    assert speculation.draft_lengths(scheduler) == (0, 1, 3, 5)
    assert (steps_of(scheduler, 1), steps_of(scheduler, 8)) == (3, 1)
    for length in (5, 0, 1):
        speculation.tell(scheduler, DraftOrder(length))
        assert (steps_of(scheduler, 1), steps_of(scheduler, 8)) == (length, length)
    speculation.tell(scheduler, STOCK)
    assert (steps_of(scheduler, 1), steps_of(scheduler, 8)) == (3, 1)
    speculation.tell(scheduler, DraftOrder(4))
    assert steps_of(scheduler, 1) == 3, "a length without a state of its own"


def test_every_length_has_graphs_for_every_batch_size(scheduler: Any) -> None:
    params = scheduler.draft_worker.adaptive_controller.params
    assert [params.cuda_graph_bs_for_step(steps) for steps in (0, 5)] == [[1, 2, 8, 16]] * 2


def test_the_rule_learns_nothing_from_steps_that_were_ordered(scheduler: Any) -> None:
    controller = scheduler.draft_worker.adaptive_controller
    for _ in range(100):
        speculation.tell(scheduler, DraftOrder(5))
        controller.on_verify_complete([5, 5], batch_size=2)
    speculation.tell(scheduler, STOCK)
    assert steps_of(scheduler, 2) == 3
    for _ in range(100):
        controller.on_verify_complete([5, 5], batch_size=2)
    assert steps_of(scheduler, 2) == 5


def test_switching_is_silent_and_leaves_nothing_behind(
    scheduler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from sglang.srt.runtime_context import get_context

    before = len(get_context()._overrides_log)
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            for length in (0, 5):
                speculation.tell(scheduler, DraftOrder(length))
                steps_of(scheduler, 1)
    assert speculation.SWITCHED not in caplog.text
    assert len(get_context()._overrides_log) <= before + 1


def test_a_measured_switch_leaves_the_length_as_it_was(scheduler: Any) -> None:
    steps_of(scheduler, 8)
    told = speculation.drafting(scheduler)
    assert told is not None
    assert (told.most_tokens, told.width, told.is_ragged) == (5, 1, False)
    assert told.switch_s > 0
    assert scheduler.draft_worker.speculative_num_steps == 1
    assert scheduler.draft_worker.adaptive_controller.params.order == STOCK


def test_an_engine_without_speculation_has_nothing_to_tell() -> None:
    scheduler: Any = SimpleNamespace(draft_worker=None)
    speculation.tell(scheduler, DraftOrder(3))
    assert speculation.draft_lengths(scheduler) == ()
    assert speculation.drafting(scheduler) is None
    result = SimpleNamespace(speculative_num_draft_tokens=None)
    assert speculation.drafted(result) is None
    assert speculation.drafted(result) is None


def test_lengths_that_the_protocol_does_not_carry_are_refused(scheduler: Any) -> None:
    scheduler.draft_worker.adaptive_controller.params.candidate_steps = [1, 256]
    with pytest.raises(ConfigurationError, match="--speculative-adaptive-config"):
        speculation.draft_lengths(scheduler)


@pytest.mark.parametrize(("algorithm", "topk"), [("EAGLE", 1), ("DFLASH", 10)])
def test_a_fixed_length_and_other_algorithms_are_left_alone(algorithm: str, topk: int) -> None:
    """Whatever is in the argument for the breadth of trees."""
    args = SimpleNamespace(
        speculative_algorithm=algorithm, speculative_adaptive=False, speculative_eagle_topk=topk
    )
    assert speculation.around_create_worker(lambda _, __: StockWorker, None, args) is StockWorker


def test_chains_of_a_draft_model_may_adapt_and_the_rest_is_as_sglang_says() -> None:
    asked: list[str] = []

    def stock(args: Any) -> str | None:
        asked.append(args.speculative_algorithm)
        return None if args.speculative_algorithm == "EAGLE" else "not supported"

    def reason(algorithm: str) -> Any:
        args = SimpleNamespace(speculative_algorithm=algorithm)
        found = speculation.around_adaptive_unsupported_reason(stock, args)
        assert args.speculative_algorithm == algorithm
        return found

    assert [reason(name) for name in ("STANDALONE", "EAGLE", "NGRAM")] == [
        None,
        None,
        "not supported",
    ]
    assert asked == ["EAGLE", "EAGLE", "NGRAM"]


def test_trees_are_drafted_in_full_or_not_at_all() -> None:
    trees = governed_trees()
    told = speculation.drafting(trees)
    assert told is not None
    assert (told.width, told.most_tokens, told.takes_budget) == (2, 7, False)
    assert speculation.draft_lengths(trees) == (0, 3)
    speculation.tell(trees, DraftOrder(0))
    assert steps_of(trees, 1) == 0
    assert trees.draft_worker.adaptive_controller._states[0].speculative_num_draft_tokens == 1
    speculation.tell(trees, STOCK)
    assert steps_of(trees, 1) == 3


def test_trees_are_no_deeper_than_kv_is_sized_for(tmp_path: Path) -> None:
    rule = tmp_path / "rule.json"
    rule.write_text(json.dumps({"1": {"candidate_steps": [1, 2]}}))
    assert TreeLengths(3, str(rule)).candidate_steps == [1, 2, 3]
    assert [tree_nodes(2, steps, 8) for steps in range(4)] == [1, 3, 7, 8]
    with pytest.raises(ConfigurationError, match="candidate_steps names 2"):
        TreeLengths(1, str(rule))


def test_a_row_takes_note_of_what_was_verified_for_it() -> None:
    row = RowRecord(1, "a", 0, ALONE, 0.0)
    step = Drafted(5, {"b": 2, "c": 9})
    assert [step.verified(rid) for rid in "abc"] == [5, 2, 5]
    assert step.computed(3) == 15
    req: Any = SimpleNamespace(rid="a", spec_num_correct_drafts=4)
    assert speculation.note_drafts(req, row, step) == 4
    req.spec_num_correct_drafts = 6
    assert speculation.note_drafts(req, row, step) == 2
    assert (row.draft_tokens, row.accepted_tokens) == (10, 6)
