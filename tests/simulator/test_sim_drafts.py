"""Speculation in the simulator: nothing is lost, and luck does not hang on who asks."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from governor_protos.messages import Snapshot
from governor_sim.drafting import Drafter, DraftingConfig, Fortune
from governor_sim.link import VirtualLink
from governor_sim.rows import SimRow, segments_of
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.acceptance import Acceptance
from governor_workloads.spec import Workload
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_builders import NO_LATENCY, PROFILE, configs, request, workload, workloads

from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor
from sglang_patch.apply.speculation import DraftOrder

COSTLY = msgspec.structs.replace(PROFILE, draft_token_s=1e-4, draft_step_s=1e-3, draft_row_s=1e-5)
POLICIES = ("fixed_draft:3", "turbospec", "draft_tree", "adaptive_candidates", "cap:2+turbospec")
LUCK = Acceptance(0.6, spread=0.2, drift=0.5, burst_share=0.2)
FEWER = settings(max_examples=15, deadline=None)


def lucky(load: Workload) -> Workload:
    return msgspec.structs.replace(load, acceptance=LUCK, seed=5)


def run(load: Workload, policy: str | None, config: SimConfig) -> SimResult:
    rule = None if policy is None else parse_policy(policy)
    predictor = None if policy is None else make_predictor("linear")
    return simulate(load, COSTLY, rule, predictor, config)


def drafting(**changes: object) -> DraftingConfig:
    return DraftingConfig(**{"lengths": (0, 1, 3, 5), "most_tokens": 5, **changes})


def assert_all_served(load: Workload, result: SimResult) -> None:
    served = {item.index: item for item in result.served}
    for asked in load.requests:
        assert served[asked.index].finished
        assert served[asked.index].output_tokens == asked.total_output_tokens
    assert result.kv_held_tokens == 0


@pytest.mark.parametrize("policy", [None, *POLICIES])
@FEWER
@given(data=st.data())
def test_every_request_gets_exactly_its_tokens(policy: str | None, data: st.DataObject) -> None:
    load = lucky(data.draw(workloads()))
    engine = drafting(
        width=data.draw(st.sampled_from([1, 3])),
        is_ragged=data.draw(st.booleans()),
        takes_budget=data.draw(st.booleans()),
    )
    config = msgspec.structs.replace(data.draw(configs(load)), drafting=engine)
    assert_all_served(load, run(load, policy, config))


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("policy", [None, "fixed_draft:5", "turbospec"])
def test_too_little_memory_retracts_and_loses_nothing(policy: str | None, overlap: bool) -> None:
    load = lucky(workload(*(request(index, 20, 200, arrival_s=0.01 * index) for index in range(8))))
    config = SimConfig(kv_tokens=400, overlap=overlap, drafting=drafting(own_length=5))
    result = run(load, policy, config)
    assert result.retractions > 0
    assert_all_served(load, result)


BUSY = lucky(workload(*(request(index, 40, 120) for index in range(6))))
IDEAL = SimConfig(latency=NO_LATENCY, overlap=False, drafting=drafting())


def test_every_token_is_one_of_a_step_or_an_accepted_draft() -> None:
    steps = run(BUSY, "fixed_draft:3", IDEAL).steps
    decode = steps.prefill_tokens == 0
    given_tokens = steps.rows[decode].sum() + steps.accepted_tokens.sum()
    wanted = sum(item.output_tokens - 1 for item in BUSY.requests)  # the first comes of prefill
    assert wanted <= given_tokens <= wanted + 3 * len(BUSY.requests)
    assert np.all(steps.accepted_tokens <= steps.draft_tokens)
    assert steps.draft_tokens.sum() > 0


def test_without_drafts_an_engine_that_could_draft_is_no_slower() -> None:
    plain = run(BUSY, "eager", msgspec.structs.replace(IDEAL, drafting=None))
    able = run(BUSY, "fixed_draft:0", IDEAL)
    assert able.virtual_s == pytest.approx(plain.virtual_s)
    assert not able.steps.draft_tokens.any()


def test_steps_take_what_the_profile_says() -> None:
    steps = run(BUSY, "fixed_draft:3", msgspec.structs.replace(
        IDEAL, drafting=drafting(switch_s=0.0))
    ).steps  # fmt: skip
    for seconds, rows, context, prefill, drafts, length in zip(
        steps.seconds, steps.rows, steps.context_tokens, steps.prefill_tokens,
        steps.draft_tokens, steps.draft_length, strict=True,
    ):  # fmt: skip
        if not prefill:
            assert seconds == pytest.approx(COSTLY.step_s(rows, context, 0, drafts, length))


def test_changing_the_length_costs_what_it_is_said_to() -> None:
    drafter = Drafter(drafting(switch_s=0.25), None, 0)
    row = row_of(0)
    waits = []
    for length in (3, 3, 0, 0, 5):
        drafts = drafter.draft([row], DraftOrder(length), 100)
        waits.append(drafter.switched_s(drafts))
    assert waits == [0.0, 0.0, 0.25, 0.0, 0.25]


def row_of(index: int, output: int = 200) -> SimRow:
    asked = request(index, 10, output)
    row = SimRow(f"{index}-0", asked, segments_of(asked, 512), 0.0)
    row.context_tokens = row.prompt_tokens + 1
    return row


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 40))
def test_a_longer_draft_meets_the_same_luck(short: int, more: int, index: int) -> None:
    luck = Fortune(LUCK, 5, row_of(index))
    for at in range(1, 60):
        little, much = luck.chain(at, short), luck.chain(at, short + more)
        assert little == min(short, much)


@given(st.integers(1, 12), st.integers(0, 40))
def test_a_larger_tree_accepts_no_less_and_a_tree_of_width_one_is_a_chain(
    nodes: int, index: int
) -> None:
    luck = Fortune(LUCK, 5, row_of(index))
    for at in range(1, 40):
        assert luck.tree(at, nodes, 5, 3) <= luck.tree(at, nodes + 4, 5, 3)
        assert luck.tree(at, nodes, 5, 1) == luck.chain(at, min(nodes, 5))


def test_accepted_tokens_do_not_hang_on_how_the_drafts_were_cut() -> None:
    """Two ways through one output: positions that both draft are accepted in both or in neither."""
    outcomes: list[dict[int, bool]] = []
    for caps in ((5,), (1, 2, 5)):
        row, luck, seen = row_of(7), Fortune(LUCK, 5, row_of(7)), {}
        at = 1
        for turn in range(40):
            cap = caps[turn % len(caps)]
            accepted = luck.chain(at, cap)
            seen.update({at + number: True for number in range(accepted)})
            if accepted < cap:
                seen[at + accepted] = False
            at += accepted + 1
        outcomes.append(seen)
        assert row.request.index == 7
    both = outcomes[0].keys() & outcomes[1].keys()
    assert len(both) > 10
    assert all(outcomes[0][place] == outcomes[1][place] for place in both)


def test_memory_without_room_for_drafts_goes_without() -> None:
    drafter = Drafter(drafting(), LUCK, 1)
    rows = [row_of(0), row_of(1)]
    assert drafter.draft(rows, DraftOrder(3), 5).length == 0
    assert drafter.refused_steps == 1
    assert drafter.draft(rows, DraftOrder(3), 6).length == 3


def test_nodes_that_are_not_worth_the_price_are_left_out() -> None:
    rows = [row_of(n) for n in range(4)]
    drafted = [
        sum(Drafter(drafting(), LUCK, 1).draft(rows, DraftOrder(5, (), 99, price), 1000).verified)
        for price in (0.0, 0.2, 0.5, 1e6)
    ]
    assert drafted[0] == 4 * 5
    assert sorted(drafted, reverse=True) == drafted
    assert drafted[-1] == 0


@given(st.integers(0, 40), st.booleans())
def test_a_budget_is_kept(budget: int, is_tree: bool) -> None:
    engine = drafting(width=3 if is_tree else 1, most_tokens=8 if is_tree else 5)
    drafter = Drafter(engine, LUCK, 1)
    drafts = drafter.draft([row_of(n) for n in range(4)], DraftOrder(5, (), budget), 1000)
    assert sum(drafts.verified) <= budget
    assert max(drafts.verified) <= engine.most_tokens


def test_the_controller_hears_of_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Snapshot] = []
    ask = VirtualLink.ask
    monkeypatch.setattr(
        VirtualLink, "ask", lambda self, sent, now_s: told.append(sent) or ask(self, sent, now_s)
    )
    run(BUSY, "fixed_draft:3", IDEAL)
    ended = [end for sent in told for end in sent.ended]
    assert ended
    assert all(0 < end.accepted_tokens <= end.draft_tokens for end in ended)
    feedback = [item for sent in told for item in sent.feedback if item.draft_length]
    assert feedback
    assert all(item.draft_tokens == 3 * item.rows for item in feedback)
    last = told[-1].rows
    assert len(last.draft_tokens) == len(last.request_id)


def test_a_policy_that_learns_drafts_more_where_drafts_are_right() -> None:
    def drafted(level: float) -> float:
        load = msgspec.structs.replace(BUSY, acceptance=Acceptance(level))
        steps = run(load, "turbospec", IDEAL).steps
        return float(steps.draft_tokens[-40:].mean())

    assert drafted(0.95) > 3 * drafted(0.1)
