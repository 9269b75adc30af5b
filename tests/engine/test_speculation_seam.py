"""The seam of speculation, without an engine: whose draft length it is, caps, and accounts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_patch.apply.speculation import STOCK, DraftOrder
from sglang_patch.errors import ConfigurationError
from sglang_patch.requests import ALONE
from sglang_patch.rows import RowRecord
from sglang_patch.seams import speculation
from sglang_patch.seams.speculation import Drafted

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")

RULE = {"1": {"candidate_steps": [3, 5]}, "8": {"candidate_steps": [0, 1]}}


class StockWorker:
    """What the seam needs of SGLang's worker."""

    has_controller = True

    def __init__(self, server_args: Any) -> None:
        from sglang.srt.speculative.adaptive_runtime_state import AdaptiveController

        self.server_args = server_args
        self.speculative_num_steps = 3
        self.verified: Any = None
        self.adaptive_controller: Any = None
        if self.has_controller:
            path = server_args.speculative_adaptive_config
            self.adaptive_controller = AdaptiveController(self, config_path=path)  # type: ignore

    def build_adaptive_runtime_state(self, speculative_num_steps: int, **sizes: Any) -> Any:
        return SimpleNamespace(speculative_num_steps=speculative_num_steps, **sizes)

    def apply_runtime_state(self, state: Any) -> None:
        from sglang.srt.runtime_context import get_context

        logging.getLogger("sglang.srt.speculative.eagle_worker_v2").info(
            "%s: steps %d", speculation.SWITCHED, state.speculative_num_steps
        )
        get_context()._overrides_log.append(("adaptive_spec.restore", {}))
        self.speculative_num_steps = state.speculative_num_steps

    def activate_step_by_batch(self, batch_size: int) -> None:
        self.adaptive_controller.activate_step_by_batch(batch_size)

    def verify(self, batch: Any, grammar_barrier: Any = None) -> Any:
        return batch.spec_info.retrieve_next_token.tolist()


class WithoutController(StockWorker):
    """SGLang's worker for draft models leaves its controller out."""

    has_controller = False


@pytest.fixture(params=[StockWorker, WithoutController])
def scheduler(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    rule = tmp_path / "rule.json"
    rule.write_text(json.dumps(RULE))
    args = SimpleNamespace(
        speculative_algorithm="EAGLE",
        speculative_adaptive=True,
        speculative_adaptive_config=str(rule),
    )
    kind = speculation.around_create_worker(lambda _, __: request.param, None, args)
    worker = kind(server_args=args)
    worker.adaptive_controller.init_states(cuda_graph_bs=[1, 2, 8, 16])
    return SimpleNamespace(draft_worker=worker)


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
    assert speculation.note_launch(scheduler, result) is None
    assert speculation.drafted(result) is None


def test_lengths_that_the_protocol_does_not_carry_are_refused(scheduler: Any) -> None:
    scheduler.draft_worker.adaptive_controller.params.candidate_steps = [1, 256]
    with pytest.raises(ConfigurationError, match="--speculative-adaptive-config"):
        speculation.draft_lengths(scheduler)


def test_a_fixed_length_is_left_alone() -> None:
    args = SimpleNamespace(speculative_algorithm="EAGLE", speculative_adaptive=False)
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


def test_caps_reach_the_verification_by_request(scheduler: Any) -> None:
    links = torch.tensor([[1, 2, -1]]).repeat(3, 1)
    batch = SimpleNamespace(
        spec_info=SimpleNamespace(retrieve_next_token=links),
        reqs=[SimpleNamespace(rid=rid) for rid in "abc"],
        forward_mode=SimpleNamespace(is_idle=lambda: False),
    )
    speculation.tell(scheduler, DraftOrder(2, (("c", 0), ("gone", 1), ("a", 1))))
    assert scheduler.draft_worker.verify(batch) == [[1, -1, -1], [1, 2, -1], [-1, 2, -1]]
    assert links.tolist() == [[1, 2, -1]] * 3, "SGLang's own tensor was changed"


TOKENS = st.integers(0, 1)  # few, so that drafts are often right


@given(st.data(), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=200)
def test_a_capped_row_keeps_the_first_tokens_of_what_it_would_accept(
    data: st.DataObject, nodes: int, rows: int
) -> None:
    from governor_kernels.greedy_verify import verify_greedy
    from governor_kernels.tree_links import TreeLinks

    drawn = st.lists(TOKENS, min_size=nodes, max_size=nodes)
    candidates = torch.tensor([data.draw(drawn) for _ in range(rows)])
    target = torch.tensor([data.draw(drawn) for _ in range(rows)])
    caps = [data.draw(st.none() | st.integers(0, 8)) for _ in range(rows)]
    flat = torch.arange(rows * nodes).view(rows, nodes)
    chain = torch.tensor([*range(1, nodes), -1]).repeat(rows, 1)
    free, capped = (
        verify_greedy(candidates, TreeLinks(flat, links, torch.full_like(links, -1)), target, nodes)
        for links in (chain, speculation.cut(chain, caps))
    )
    for row, cap in enumerate(caps):
        most = int(free.correct_drafts[row])
        kept = most if cap is None else min(most, cap)
        assert int(capped.correct_drafts[row]) == kept
        assert capped.accept_index[row, : kept + 1].tolist() == (
            free.accept_index[row, : kept + 1].tolist()
        )
        at = flat[row, : kept + 1]
        assert capped.predicts[at].tolist() == free.predicts[at].tolist()


def test_capped_rows_follow_the_target_above_temperature_0() -> None:
    """Three tokens; the target after the root, and after the drafted token 0."""
    from governor_kernels.tree_links import TreeLinks
    from governor_kernels.tree_sampling import verify_by_sampling

    rows, first, second = 6000, [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]
    generator = torch.Generator().manual_seed(1)
    caps = torch.randint(0, 3, (rows,), generator=generator).tolist()
    chain = torch.tensor([1, 2, -1]).repeat(rows, 1)
    verified = verify_by_sampling(
        torch.tensor([0, 0, 1]).repeat(rows, 1),
        TreeLinks(
            torch.arange(rows * 3).view(rows, 3),
            speculation.cut(chain, caps),
            torch.full_like(chain, -1),
        ),
        torch.tensor([first, second, first]).repeat(rows, 1, 1),
        torch.rand(rows, 3, generator=generator),
        torch.rand(rows, generator=generator),
        3,
    )
    said = verified.predicts[verified.accept_index.clamp(min=0)].tolist()
    counts = verified.correct_drafts.tolist()
    assert all(count <= cap for count, cap in zip(counts, caps, strict=True))
    for cap in range(3):
        steps = [
            step[: count + 1]
            for step, count, own in zip(said, counts, caps, strict=True)
            if own == cap
        ]
        assert_drawn_from(first, [step[0] for step in steps])
        if cap:
            assert_drawn_from(second, [step[1] for step in steps if len(step) > 1])


def assert_drawn_from(probs: list[float], tokens: list[int]) -> None:
    from scipy.stats import chisquare

    expected = [prob * len(tokens) for prob in probs]
    found = [tokens.count(token) for token in range(len(probs))]
    assert min(expected) > 50
    assert chisquare(found, expected).pvalue > 1e-4, (found, expected)


def test_a_row_takes_note_of_what_was_verified_for_it() -> None:
    row = RowRecord(1, "a", 0, ALONE, 0.0)
    step = Drafted(5, {"b": 2, "c": 9})
    assert [step.verified(rid) for rid in "abc"] == [5, 2, 5]
    req: Any = SimpleNamespace(rid="a", spec_num_correct_drafts=4)
    assert speculation.note_drafts(req, row, step) == 4
    req.spec_num_correct_drafts = 6
    assert speculation.note_drafts(req, row, step) == 2
    assert (row.draft_tokens, row.accepted_tokens) == (10, 6)
