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
from sglang_patch.platforms.speculation.kept_nodes import KEPT_NODES
from sglang_patch.requests import ALONE
from sglang_patch.rows import RowRecord
from sglang_patch.seams import speculation
from sglang_patch.seams.speculation import Drafted
from sglang_patch.seams.speculation.lengths import TreeLengths, tree_nodes

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")

RULE = {"1": {"candidate_steps": [3, 5]}, "8": {"candidate_steps": [0, 1]}}


VOCABULARY = 7


class Target:
    """What the seam needs of SGLang's ModelRunner."""

    def __init__(self) -> None:
        self.attn_backend = SimpleNamespace()
        self.server_args = SimpleNamespace(enable_lora=False)
        self.computed: list[Any] = []

    def forward(self, batch: Any) -> Any:
        """Logits that say which token they are for."""
        self.computed.append(batch)
        logits = torch.nn.functional.one_hot(batch.input_ids, VOCABULARY).float()
        output = SimpleNamespace(next_token_logits=logits, hidden_states=None)
        return SimpleNamespace(logits_output=output)


class StockDraftWorker:
    """Likewise of the worker that drafts: chains of 2, each token less likely than the last."""

    def __init__(self, topk: int) -> None:
        self.topk = topk
        self.draft_runner = SimpleNamespace(forward=self.model)

    def model(self, chances: Any) -> Any:
        return SimpleNamespace(logits_output=SimpleNamespace(next_token_logits=chances.log()))

    def draft(self, batch: Any) -> Any:
        batch.run(self.draft_runner)
        return batch.spec_info.verification

    def _draft_extend_for_decode(self, batch: Any, batch_result: Any) -> None:
        output = self.draft_runner.forward(batch.next_chances).logits_output
        output.next_token_logits = output.next_token_logits[batch.last_of_rows]
        batch_result.next_draft_input.topk_p = torch.ones(len(batch.last_of_rows), 1)


class StockWorker:
    """Likewise of the worker that SGLang's scheduler has."""

    has_controller = True

    def __init__(self, server_args: Any) -> None:
        from sglang.srt.speculative.adaptive_runtime_state import AdaptiveController

        self.server_args = server_args
        self.topk = server_args.speculative_eagle_topk
        self.speculative_num_steps = 3
        self.speculative_num_draft_tokens = 8 if self.topk > 1 else 4
        self._draft_worker = StockDraftWorker(self.topk)
        self._target_worker = SimpleNamespace(model_runner=Target())
        self.adaptive_controller: Any = None
        if self.has_controller:
            path = server_args.speculative_adaptive_config
            self.adaptive_controller = AdaptiveController(self, config_path=path)  # type: ignore

    def build_adaptive_runtime_state(
        self,
        speculative_num_steps: int,
        speculative_num_draft_tokens: int,
        cuda_graph_bs: Any = None,
    ) -> Any:
        return SimpleNamespace(
            speculative_num_steps=speculative_num_steps,
            speculative_num_draft_tokens=speculative_num_draft_tokens,
        )

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
        """Every row accepts what its links lead to."""
        links = batch.spec_info.retrieve_next_token
        self._target_worker.model_runner.forward(batch.verification)
        return SimpleNamespace(
            links=links.tolist(),
            accept_lens=(links >= 0).sum(dim=1) + 1,
            speculative_num_draft_tokens=links.shape[1],
        )


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
        speculative_eagle_topk=1,
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


def chains(rows: int, nodes: int = 3) -> Any:
    """A batch whose rows, named a, b, ..., have drafted chains; node k of row r is token k + r."""
    links = torch.tensor([*range(1, nodes), -1]).repeat(rows, 1)
    spec_info = SimpleNamespace(retrieve_next_token=links, topk=1)
    tokens = torch.arange(nodes) + torch.arange(rows).unsqueeze(1)
    return SimpleNamespace(
        spec_info=spec_info,
        reqs=[SimpleNamespace(rid=rid) for rid in "abcdef"[:rows]],
        forward_mode=SimpleNamespace(is_idle=lambda: False),
        verification=SimpleNamespace(
            forward_mode=SimpleNamespace(is_target_verify=lambda: True),
            input_ids=tokens.flatten(),
            positions=tokens.flatten() + 10,
            out_cache_loc=tokens.flatten() + 20,
            mrope_positions=None,
            num_token_non_padded=torch.tensor(rows * nodes),
            num_token_non_padded_cpu=rows * nodes,
            spec_info=spec_info,
        ),
    )


def test_caps_reach_the_verification_by_request(scheduler: Any) -> None:
    batch = chains(3)
    links = batch.spec_info.retrieve_next_token
    speculation.tell(scheduler, DraftOrder(2, (("c", 0), ("gone", 1), ("a", 1)), budget=1))
    result = scheduler.draft_worker.verify(batch)
    assert result.links == [[1, -1, -1], [1, 2, -1], [-1, 2, -1]], "a budget was spent, too"
    assert links.tolist() == [[1, 2, -1]] * 3, "SGLang's own tensor was changed"
    step = speculation.note_launch(scheduler, result)
    assert step is not None
    assert [step.verified(rid) for rid in "abc"] == [1, 2, 0]
    assert step.computed(3) == 6, "each row is computed in full"


def ragged(scheduler: Any) -> Target:
    target: Target = scheduler.draft_worker._target_worker.model_runner
    target.attn_backend.verifies_kept_nodes = True
    return target


def test_what_a_cap_leaves_out_is_not_computed(scheduler: Any) -> None:
    target, batch = ragged(scheduler), chains(3)
    speculation.tell(scheduler, DraftOrder(2, (("c", 0), ("gone", 1), ("a", 1))))
    result = scheduler.draft_worker.verify(batch)
    (computed,) = target.computed
    assert computed.input_ids.tolist() == [0, 1, 1, 2, 3, 2]
    assert (computed.positions - computed.input_ids).tolist() == [10] * 6
    assert (computed.out_cache_loc - computed.input_ids).tolist() == [20] * 6
    assert computed.num_token_non_padded.tolist() == computed.num_token_non_padded_cpu == 6
    assert len(batch.verification.input_ids) == 9, "SGLang's own batch was changed"
    assert not hasattr(batch.spec_info, KEPT_NODES)
    step = speculation.note_launch(scheduler, result)
    assert step == Drafted(3, {"a": 1, "b": 2, "c": 0}, 2, True)
    assert step.computed(3) == 3
    assert target.forward(chains(1).verification).logits_output.next_token_logits.shape[0] == 3


def test_the_shape_that_sglang_knows_comes_back() -> None:
    target, batch = Target(), chains(2).verification
    kept = torch.tensor([[True, False, False], [True, True, False]])
    with speculation.only(target, kept):
        logits = target.forward(batch).logits_output.next_token_logits
    assert logits.argmax(-1).view(2, 3)[kept].tolist() == [0, 1, 2]
    assert not logits.view(2, 3, -1)[~kept].any()


def test_adapters_are_laid_out_for_all_nodes(scheduler: Any) -> None:
    ragged(scheduler)
    assert scheduler.draft_worker.is_ragged
    scheduler.draft_worker._target_worker.model_runner.server_args.enable_lora = True
    assert not scheduler.draft_worker.is_ragged


def drafted_chains(scheduler: Any, first: list[float], second: list[float]) -> Any:
    """Chains whose first and second tokens have these chances by the draft itself."""
    batch = chains(len(first))
    drafting = SimpleNamespace(
        topk_p=torch.tensor(first).unsqueeze(1), verification=batch.spec_info
    )
    rest = (1.0 - torch.tensor(second)) / 2
    scheduler.draft_worker._draft_worker.draft(
        SimpleNamespace(
            spec_info=drafting,
            run=lambda runner: runner.forward(
                torch.stack((rest, torch.tensor(second), rest), dim=1)
            ),
        )
    )
    return batch


def test_a_budget_goes_where_the_draft_is_sure(scheduler: Any) -> None:
    """Paths of a: 0.5, 0.45; of b: 0.9, 0.36; of c: 0.6, 0.57."""
    ragged(scheduler)

    def spent(budget: int, **caps: int) -> list[int]:
        batch = drafted_chains(scheduler, [0.5, 0.9, 0.6], [0.9, 0.4, 0.95])
        speculation.tell(scheduler, DraftOrder(3, tuple(caps.items()), budget))
        result = scheduler.draft_worker.verify(batch)
        step = speculation.note_launch(scheduler, result)
        assert step is not None
        assert step.computed(3) == min(budget, 6 - sum(2 - cap for cap in caps.values()))
        return [step.verified(rid) for rid in "abc"]

    assert spent(0) == [0, 0, 0]
    assert spent(1) == [0, 1, 0]
    assert spent(3) == [0, 1, 2]
    assert spent(5) == [2, 1, 2]
    assert spent(9) == [2, 2, 2]
    assert spent(3, c=1) == [1, 1, 1]


def test_a_row_that_is_given_less_comes_first(scheduler: Any) -> None:
    """Steps in which a accepts nothing and b two tokens: what may come of a is worth more."""
    ragged(scheduler)
    batch = drafted_chains(scheduler, [0.5, 0.6], [0.9, 0.9])
    speculation.tell(scheduler, DraftOrder(3, (("a", 0),)))
    for _ in range(20):
        batch.spec_info.retrieve_next_token = chains(2).spec_info.retrieve_next_token
        scheduler.draft_worker.verify(batch)
    speculation.tell(scheduler, DraftOrder(3, budget=1))
    batch.spec_info.retrieve_next_token = chains(2).spec_info.retrieve_next_token
    step = speculation.note_launch(scheduler, scheduler.draft_worker.verify(batch))
    assert step is not None
    assert [step.verified(rid) for rid in "ab"] == [1, 0]


def test_a_chains_first_token_has_a_chance_after_every_step(scheduler: Any) -> None:
    draft = scheduler.draft_worker._draft_worker
    result = SimpleNamespace(next_draft_input=SimpleNamespace(topk_p=None))
    chances = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.7, 0.3], [1.0, 0.0]])
    batch = SimpleNamespace(next_chances=chances, last_of_rows=torch.tensor([0, 2]))
    draft.draft_runner.forward(torch.rand(5, 2))  # a prefill
    draft._draft_extend_for_decode(batch, result)
    torch.testing.assert_close(result.next_draft_input.topk_p, torch.tensor([[0.9], [0.7]]))


@pytest.fixture
def trees() -> Any:
    """A worker of trees 3 deep, of at most 8 nodes, 2 candidates a place."""
    args = SimpleNamespace(
        speculative_algorithm="STANDALONE",
        speculative_adaptive=False,
        speculative_adaptive_config=None,
        speculative_eagle_topk=2,
    )
    kind = speculation.around_create_worker(lambda _, __: WithoutController, None, args)
    worker = kind(server_args=args)
    controller = worker.adaptive_controller
    controller.register(worker.build_adaptive_runtime_state(3, 8))
    controller.init_states()
    return SimpleNamespace(draft_worker=worker)


def test_trees_are_drafted_in_full_or_not_at_all(trees: Any) -> None:
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


def test_of_a_tree_the_likeliest_nodes_are_kept(trees: Any) -> None:
    """The root's children are 1 and 2, node 1 has 3 and 4, and node 2 has 5.

    The beam numbers them 0, 1; 2, 3, 5.
    """
    none = -1
    target = ragged(trees)
    verification = SimpleNamespace(
        topk=2,
        retrieve_index=torch.arange(6).view(1, 6),
        retrieve_next_token=torch.tensor([[1, 3, 5, none, none, none]]),
        retrieve_next_sibling=torch.tensor([[none, 2, none, 4, none, none]]),
    )
    scores = [torch.tensor([[[0.5, 0.4]]]), torch.tensor([[[0.3, 0.05], [0.2, 0.35]]])]
    batch = chains(1, nodes=6)
    batch.verification.spec_info = batch.spec_info = verification

    def run(_: Any) -> None:
        organized = (None, torch.tensor([[0, 1, 2, 3, 5]]), None)
        speculation.after_organize_draft_results(organized, scores, [], [], 6)

    trees.draft_worker._draft_worker.draft(
        SimpleNamespace(spec_info=SimpleNamespace(verification=verification), run=run)
    )
    speculation.tell(trees, DraftOrder(3, (("a", 3),)))
    result = trees.draft_worker.verify(batch)
    assert target.computed[-1].input_ids.tolist() == [0, 1, 2, 5]
    assert result.links == [[1, none, 5, none, none, none]]
    assert verification.retrieve_next_sibling.tolist() == [[none, 2, none, none, none, none]]
    assert speculation.drafted(result) == Drafted(3, {"a": 3}, 5, True)


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
    assert step.computed(3) == 15
    req: Any = SimpleNamespace(rid="a", spec_num_correct_drafts=4)
    assert speculation.note_drafts(req, row, step) == 4
    req.spec_num_correct_drafts = 6
    assert speculation.note_drafts(req, row, step) == 2
    assert (row.draft_tokens, row.accepted_tokens) == (10, 6)
