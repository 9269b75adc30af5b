"""Verification above temperature 0 keeps the target's distribution, whatever is drafted."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from trees import Parents, labelled_trees, path_to

torch = pytest.importorskip("torch")

from governor_kernels.categorical import draw  # noqa: E402
from governor_kernels.chain_sampling import verify_chain_by_rejection  # noqa: E402
from governor_kernels.greedy_verify import Verified, verify_greedy  # noqa: E402
from governor_kernels.renormalise import top_k_renormalise, top_p_renormalise  # noqa: E402
from governor_kernels.tree_links import links_from_parents  # noqa: E402
from governor_kernels.tree_sampling import verify_by_sampling  # noqa: E402

DRAWS = 6000
VOCABULARY = 10
LEAST_P_VALUE = 1e-4
"""Seeds are fixed, so that the tests either always pass or never do."""

FIRST = torch.tensor([0.45, 0.3, 0.15, 0.1])
"""The target after the root, over a vocabulary of four tokens."""
SECOND = torch.tensor([[0.1, 0.6, 0.1, 0.2], [0.7, 0.1, 0.1, 0.1], [0.25] * 4, [0.0, 0.5, 0.5, 0]])
"""The target after each first token."""


def assert_follows(counts: Counter[int], probs: torch.Tensor) -> None:
    """`counts` of tokens could have been drawn from `probs`."""
    total = sum(counts.values())
    possible = [token for token in range(len(probs)) if probs[token] > 0]
    assert set(counts) <= set(possible)
    weights = [float(probs[token]) for token in possible]
    expected = [weight / sum(weights) * total for weight in weights]
    result = chisquare([counts[token] for token in possible], expected)
    assert result.pvalue > LEAST_P_VALUE, (counts, expected)


def steps_of(verified: Verified, nodes: int) -> list[list[int]]:
    """Tokens that each row's step adds."""
    predicts = verified.predicts.tolist()
    return [[predicts[at] for at in path if at >= 0] for path in verified.accept_index.tolist()]


def assert_steps_follow_the_target(steps: list[list[int]]) -> None:
    assert_follows(Counter(step[0] for step in steps), FIRST)
    longer = [step for step in steps if len(step) > 1]
    assert len(longer) > DRAWS / 10, "hardly anything was accepted: this tests nothing"
    for token in {step[0] for step in longer}:
        assert_follows(Counter(s[1] for s in longer if s[0] == token), SECOND[token])


@pytest.mark.parametrize("parents", [[-1, 0, 0, 1], [-1, 0, 0, 0], [-1, 0, 1, 2]])
def test_trees_keep_the_distribution(parents: Parents) -> None:
    torch.manual_seed(1)
    # Children of the root are 1, 3, 0 in turn, and so is each node's only child.
    tokens = [0, 1, 3, 0]
    target = torch.stack([FIRST, *(SECOND[token] for token in tokens[1:])])
    nodes = len(parents)
    verified = verify_by_sampling(
        torch.tensor([tokens] * DRAWS),
        links_from_parents(torch.tensor([parents] * DRAWS)),
        target.expand(DRAWS, -1, -1),
        torch.rand(DRAWS, nodes),
        torch.rand(DRAWS),
        nodes,
    )
    assert_steps_follow_the_target(steps_of(verified, nodes))


@pytest.mark.parametrize(
    "drafting", [[0.25] * 4, [0.45, 0.3, 0.15, 0.1], [0.05, 0.05, 0.1, 0.8], [0.0, 1.0, 0.0, 0.0]]
)
def test_chains_keep_the_distribution(drafting: list[float]) -> None:
    torch.manual_seed(2)
    drafts = torch.tensor(drafting)
    first = torch.multinomial(drafts, DRAWS, replacement=True)
    second = torch.multinomial(drafts, DRAWS, replacement=True)
    target = torch.stack((FIRST.expand(DRAWS, -1), SECOND[first], SECOND[second]), dim=1)
    verified = verify_chain_by_rejection(
        torch.stack((torch.zeros_like(first), first, second), dim=1),
        torch.arange(DRAWS * 3).view(DRAWS, 3),
        target,
        drafts.expand(DRAWS, 2, -1),
        torch.rand(DRAWS, 3),
        torch.rand(DRAWS),
    )
    assert_steps_follow_the_target(steps_of(verified, 3))


def test_a_draft_that_is_the_target_is_always_accepted() -> None:
    torch.manual_seed(3)
    first = torch.multinomial(FIRST, 200, replacement=True)
    verified = verify_chain_by_rejection(
        torch.stack((torch.zeros_like(first), first), dim=1),
        torch.arange(400).view(200, 2),
        torch.stack((FIRST.expand(200, -1), SECOND[first]), dim=1),
        FIRST.expand(200, 1, -1),
        torch.rand(200, 2),
        torch.rand(200),
    )
    assert verified.correct_drafts.tolist() == [1] * 200


def test_an_undefined_draft_distribution_counts_as_zero() -> None:
    """NaN is no number to accept by; the token drawn instead is the target's."""
    verified = verify_chain_by_rejection(
        torch.tensor([[0, 2]]),
        torch.tensor([[0, 1]]),
        torch.stack((FIRST, FIRST)).unsqueeze(0),
        torch.full((1, 1, 4), float("nan")),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([0.5]),
    )
    assert verified.correct_drafts.tolist() == [0]
    assert verified.predicts[0] == draw(FIRST, 0.5)


@given(labelled_trees(VOCABULARY), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_a_certain_target_is_verified_as_greedily(
    drawn: tuple[list[Parents], list[list[int]]], seed: int
) -> None:
    trees, tokens = drawn
    torch.manual_seed(seed)
    rows, nodes = len(trees), len(trees[0])
    links = links_from_parents(torch.tensor(trees))
    chosen = torch.randint(0, VOCABULARY, (rows, nodes))
    sampled = verify_by_sampling(
        torch.tensor(tokens),
        links,
        torch.nn.functional.one_hot(chosen, VOCABULARY).float(),
        # A coin of exactly 0 accepts what has probability 0, in the kernel too.
        torch.rand(rows, nodes).clamp(min=1e-6),
        torch.rand(rows),
        nodes,
    )
    greedy = verify_greedy(torch.tensor(tokens), links, chosen, nodes)
    for found, wanted in zip(sampled, greedy, strict=True):
        assert found.tolist() == wanted.tolist()


@given(labelled_trees(VOCABULARY), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=50)
def test_accepted_nodes_are_a_path_of_at_most_the_width(
    drawn: tuple[list[Parents], list[list[int]]], seed: int, data: st.DataObject
) -> None:
    trees, tokens = drawn
    torch.manual_seed(seed)
    rows, nodes = len(trees), len(trees[0])
    width = data.draw(st.integers(1, nodes))
    verified = verify_by_sampling(
        torch.tensor(tokens),
        links_from_parents(torch.tensor(trees)),
        torch.rand(rows, nodes, VOCABULARY).softmax(-1),
        torch.rand(rows, nodes),
        torch.rand(rows),
        width,
    )
    for row, path in enumerate(verified.accept_index.tolist()):
        accepted = [at - row * nodes for at in path if at >= 0]
        assert len(path) == width
        assert accepted == path_to(trees[row], accepted[-1])
        assert verified.correct_drafts[row] == len(accepted) - 1
        for above, below in pairwise(accepted):
            assert verified.predicts[row * nodes + above] == tokens[row][below]


@pytest.mark.parametrize(
    ("thresholds", "accepted"),
    [({}, 0), ({"threshold_single": 0.3}, 1), ({"threshold_acc": 0.5}, 1)],
)
def test_thresholds_accept_more(thresholds: dict[str, float], accepted: int) -> None:
    verified = verify_by_sampling(
        torch.tensor([[0, 1]]),
        links_from_parents(torch.tensor([[-1, 0]])),
        torch.stack((FIRST, FIRST)).unsqueeze(0),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([0.9]),
        2,
        **thresholds,
    )
    assert verified.correct_drafts.tolist() == [accepted]


@given(
    st.lists(st.sampled_from([0.0, 1e-8, 0.1, 0.5, 3.0]), min_size=1, max_size=8),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_has_positive_weight(weights: list[float], coin: float) -> None:
    if not any(weights):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw(torch.tensor(weights), coin)
        return
    assert weights[draw(torch.tensor(weights), coin)] > 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.05, 1.0))
def test_renormalising_keeps_the_most_likely(seed: int, k: int, p: float) -> None:
    torch.manual_seed(seed)
    probs = torch.rand(1, 9).double().softmax(-1)
    ranked = probs[0].sort(descending=True).values.tolist()
    by_k = top_k_renormalise(probs, torch.tensor([k]))[0]
    assert int((by_k > 0).sum()) == min(k, 9)
    by_p = top_p_renormalise(probs, torch.tensor([p]).double())[0]
    kept = int((by_p > 0).sum())
    assert sum(ranked[: kept - 1]) < p
    assert sum(ranked[:kept]) >= p - 1e-9
    for cut in (by_k, by_p):
        assert float(cut.sum()) == pytest.approx(1.0)
        where = cut > 0
        assert float(probs[0][where].min()) >= float(
            probs[0][~where].max() if (~where).any() else 0
        )


def test_all_tokens_stay_where_none_is_to_be_cut() -> None:
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    assert torch.equal(top_k_renormalise(probs, torch.tensor([1 << 30, 3])), probs)
    assert torch.equal(top_p_renormalise(probs, torch.tensor([1.0, 1.0])), probs)
