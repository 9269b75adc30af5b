"""Which drafted nodes a governed worker verifies, computes and accepts; without an engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from draft_workers import StockWorker, Target, governed_chains, governed_trees
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_patch.apply.speculation import DraftOrder
from sglang_patch.platforms.speculation.kept_nodes import KEPT_NODES
from sglang_patch.seams import speculation, versions
from sglang_patch.seams.speculation import Drafted
from sglang_patch.seams.speculation.chances import CHANCES
from sglang_patch.seams.speculation.choosing import choose

torch = pytest.importorskip("torch")
pytest.importorskip("sglang")
pytestmark = pytest.mark.skipif(
    not versions.knows_drafts(), reason="drafts are not known of this version of SGLang"
)


@pytest.fixture
def scheduler(tmp_path: Path) -> Any:
    return governed_chains(StockWorker, tmp_path)


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
    step = speculation.drafted(result)
    assert step is not None
    assert [step.verified(rid) for rid in "abc"] == [1, 2, 0]
    assert step.computed(3) == 6, "each row is computed in full"


def ragged(scheduler: Any) -> Target:
    target: Target = scheduler.draft_worker._target_worker.model_runner
    target.attn_backend.verifies_kept_nodes = True
    # What a draft says is what comes of it.
    scheduler.draft_worker._calibration.chances = lambda said: said
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
    step = speculation.drafted(result)
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
        step = speculation.drafted(result)
        assert step is not None
        assert step.computed(3) == min(budget, 6 - sum(2 - cap for cap in caps.values()))
        return [step.verified(rid) for rid in "abc"]

    assert spent(0) == [0, 0, 0]
    assert spent(1) == [0, 1, 0]
    assert spent(3) == [0, 1, 2]
    assert spent(5) == [2, 1, 2]
    assert spent(9) == [2, 2, 2]
    assert spent(3, c=1) == [1, 1, 1]


def test_what_is_not_worth_the_price_is_not_verified(scheduler: Any) -> None:
    """A row's first pace is two tokens for one draft: a path of chance p is worth p / (2 - p)."""
    ragged(scheduler)

    def spent(price: float, budget: int = 9) -> list[int]:
        batch = drafted_chains(scheduler, [0.5, 0.9, 0.6], [0.9, 0.4, 0.95])
        speculation.tell(scheduler, DraftOrder(3, (), budget, price))
        for req in batch.reqs:
            vars(req).pop("governor_pace", None)
        step = speculation.drafted(scheduler.draft_worker.verify(batch))
        assert step is not None
        return [step.verified(rid) for rid in "abc"]

    assert spent(0.2) == [2, 2, 2]
    assert spent(0.3) == [1, 1, 2]
    assert spent(0.3, budget=3) == [0, 1, 2]
    assert spent(0.41) == [0, 1, 1]
    assert spent(0.9) == [0, 0, 0]


def test_a_row_that_is_given_less_comes_first(scheduler: Any) -> None:
    """Steps in which a accepts nothing and b two tokens: what may come of a is worth more."""
    ragged(scheduler)
    batch = drafted_chains(scheduler, [0.5, 0.52], [0.9, 0.9])
    speculation.tell(scheduler, DraftOrder(3, (("a", 0),)))
    for _ in range(20):
        batch.spec_info.retrieve_next_token = chains(2).spec_info.retrieve_next_token
        scheduler.draft_worker.verify(batch)
    speculation.tell(scheduler, DraftOrder(3, budget=1))
    batch.spec_info.retrieve_next_token = chains(2).spec_info.retrieve_next_token
    step = speculation.drafted(scheduler.draft_worker.verify(batch))
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


def test_of_a_tree_the_likeliest_nodes_are_kept() -> None:
    """The root's children are 1 and 2, node 1 has 3 and 4, and node 2 has 5.

    The beam numbers them 0, 1; 2, 3, 5.
    """
    none = -1
    trees = governed_trees()
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


@given(st.data(), st.integers(1, 8), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_a_row_of_trees_keeps_as_much_of_what_it_would_accept_as_is_verified(
    data: st.DataObject, nodes: int, rows: int
) -> None:
    from governor_kernels.greedy_verify import verify_greedy
    from governor_kernels.tree_links import TreeLinks, links_from_parents

    parents = torch.tensor(
        [[-1, *(data.draw(st.integers(0, node - 1)) for node in range(1, nodes))]] * rows
    )
    candidates = torch.arange(nodes).repeat(rows, 1)  # no two siblings alike
    target = torch.tensor([[data.draw(st.integers(0, nodes)) for _ in range(nodes)]] * rows)
    links = links_from_parents(parents)
    chances = torch.rand(rows, nodes, generator=torch.Generator().manual_seed(nodes))
    verification = SimpleNamespace(
        topk=2,
        retrieve_index=links.flat_index,
        retrieve_next_token=links.first_child,
        retrieve_next_sibling=links.next_sibling,
    )
    setattr(verification, CHANCES, lambda: chances)
    reqs = [SimpleNamespace(rid=str(row)) for row in range(rows)]
    caps = tuple((req.rid, data.draw(st.integers(0, nodes))) for req in reqs)
    budget = data.draw(st.integers(-1, rows * nodes))
    chosen = choose(DraftOrder(1, caps, budget), reqs, verification, ragged=True)
    kept = torch.ones(rows, nodes, dtype=torch.bool) if chosen is None else chosen.kept
    free = verify_greedy(candidates, links, target, nodes)
    shorter = TreeLinks(
        links.flat_index, verification.retrieve_next_token, verification.retrieve_next_sibling
    )
    found = verify_greedy(candidates, shorter, target, nodes)
    for row in range(rows):
        path = [node for node in free.accept_index[row].tolist() if node >= 0]
        wanted = [node for node in path if kept.flatten()[node]]
        assert [node for node in found.accept_index[row].tolist() if node >= 0] == wanted
        assert wanted == path[: len(wanted)]
        assert found.predicts[wanted].tolist() == free.predicts[wanted].tolist()


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
