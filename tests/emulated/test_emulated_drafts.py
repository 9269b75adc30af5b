"""Drafts of the emulated engine: the simulator's to the token, and luck that clients bring."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from governor_bench.load.spec import RequestSpec
from governor_sim.drafting import Drafter, DraftingConfig
from governor_sim.rows import SimRow, segments_of
from governor_workloads.acceptance import Acceptance
from governor_workloads.spec import Workload, WorkRequest
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.apply.speculation import DraftOrder
from sglang_patch.emulated.config import EmulationConfig, load
from sglang_patch.emulated.speculation.drafts import EmulatedDrafts
from sglang_patch.emulated.speculation.fields import CHOICES, LEVELS, encoded, luck_of
from sglang_patch.emulated.speculation.luck import RowLuck, drawn
from sglang_patch.errors import ConfigurationError, RequestFieldError

LENGTHS = (0, 1, 3, 5)
OUTPUT_TOKENS = 60
ACCEPTANCE = Acceptance(0.7, spread=0.2, drift=0.5, burst_share=0.2)
WORKLOAD = Workload(
    name="w",
    description="by hand",
    requests=tuple(WorkRequest(n, 0.0, 10 + n, OUTPUT_TOKENS) for n in range(6)),
    seed=5,
    acceptance=ACCEPTANCE,
)


def brought(index: int) -> RowLuck:
    """What the load client sends of a request's luck, as the engine reads it."""
    spec = RequestSpec.of(
        WORKLOAD, WORKLOAD.requests[index], time_scale=1.0, vocabulary=2000, sampling={}
    )
    luck = luck_of(spec.body("r")["sampling_params"]["custom_params"])
    assert luck is not None
    return luck


@st.composite
def orders(draw: st.DrawFn, rows: int) -> DraftOrder:
    capped = draw(st.dictionaries(st.integers(0, rows - 1), st.integers(0, 6)))
    caps = tuple((f"{row}-0", cap) for row, cap in capped.items())
    budget = draw(st.integers(-1, 5 * rows))
    price = draw(st.sampled_from([0.0, 0.1, 0.4, 2.0]))
    return DraftOrder(draw(st.integers(-1, 6)), caps, budget, price)


@given(st.data(), st.integers(1, 6))
def test_equal_orders_meet_the_luck_that_the_simulator_meets(
    data: st.DataObject, count: int
) -> None:
    simulator = Drafter(
        DraftingConfig(lengths=LENGTHS, own_length=LENGTHS[-1], most_tokens=LENGTHS[-1]),
        ACCEPTANCE,
        WORKLOAD.seed,
    )
    emulated, lucks = EmulatedDrafts(LENGTHS), [brought(index) for index in range(count)]
    rows = [
        SimRow(f"{asked.index}-0", asked, segments_of(asked, 512), 0.0)
        for asked in WORKLOAD.requests[:count]
    ]
    places = [1] * count
    for _ in range(data.draw(st.integers(1, 12))):
        emulated.order = order = data.draw(orders(count))
        for row, at in zip(rows, places, strict=True):
            row.context_tokens = row.prompt_tokens + at
        wanted = simulator.draft(rows, order, 10**6)
        found = emulated.step([row.rid for row in rows], lucks, places)
        assert found.length == wanted.length
        assert found.verified == (wanted.verified or [0] * count)
        assert found.accepted == (wanted.accepted or [0] * count)
        assert not 0 <= order.budget < sum(found.verified)
        places = [at + 1 + more for at, more in zip(places, found.accepted, strict=True)]


def test_without_orders_it_drafts_its_longest() -> None:
    assert EmulatedDrafts(LENGTHS).step(["a"], [brought(0)], [1]).length == LENGTHS[-1]
    told = EmulatedDrafts(LENGTHS).drafting()
    assert (told.width, told.most_tokens, told.is_ragged, told.takes_budget) == (1, 5, True, True)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=40), st.integers(0, 45), st.integers(0, 9))
def test_a_chain_is_accepted_up_to_the_first_wrong_choice(
    choices: list[int], at: int, cap: int
) -> None:
    luck = RowLuck(np.array(choices), np.full(len(choices), 0.5))
    wanted = 0
    while wanted < cap and at + wanted < len(choices) and choices[at + wanted] == 1:
        wanted += 1
    assert luck.chain(at, cap) == wanted


@given(st.lists(st.integers(0, 2047), min_size=1, max_size=9), st.integers(0, 3))
def test_luck_of_its_own_hangs_on_seed_prompt_and_position_alone(
    prompt: list[int], seed: int
) -> None:
    def runs(luck: RowLuck) -> list[bool]:
        return [luck.chain(at, 1) == 1 for at in range(200)]

    first = runs(drawn(0.6, seed, prompt, 300))
    assert runs(drawn(0.6, seed, prompt, 400)) == first
    assert runs(drawn(0.6, seed + 1, prompt, 300)) != first
    assert runs(drawn(0.6, seed, [*prompt, 1], 300)) != first
    assert runs(drawn(0.0, seed, prompt, 300)) == [False] * 200
    assert runs(drawn(1.0, seed, prompt, 300)) == [True] * 200


def test_the_level_is_the_share_of_right_drafts() -> None:
    luck = drawn(0.7, 1, [3, 4], 20_000)
    right = sum(luck.chain(at, 1) for at in range(20_000)) / 20_000
    assert right == pytest.approx(0.7, abs=0.02)
    assert luck.levels(5, 3) == [0.7] * 3


FIELDS = encoded(np.array([1, 2, 1]), np.array([0.5, 0.6, 0.7]))


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({LEVELS: None}, LEVELS, "must be a base64 string"),
        ({CHOICES: 7}, CHOICES, "must be a base64 string, not int"),
        ({CHOICES: "?"}, CHOICES, "no base64"),
        ({CHOICES: ""}, CHOICES, "must hold 1 bytes"),
        ({CHOICES: "AQ=="}, LEVELS, "has 3 positions and draft_choices has 1"),
        ({CHOICES: base64.b64encode(b"\1\0\1").decode()}, CHOICES, "counted from 1"),
        ({LEVELS: "AQ=="}, LEVELS, "must hold 8 bytes"),
        (encoded(np.ones(3), np.array([0.5, np.nan, 0.5])), LEVELS, "from 0 to 1"),
        ({LEVELS: "A" * (2 << 20)}, LEVELS, "too long"),
    ],
)
def test_bad_luck_is_refused_by_name(change: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(RequestFieldError, match=problem) as refused:
        luck_of({**FIELDS, **change})
    assert refused.value.field == field


@pytest.mark.parametrize(("kept", "missing"), [(CHOICES, LEVELS), (LEVELS, CHOICES)])
def test_half_of_a_luck_is_refused(kept: str, missing: str) -> None:
    with pytest.raises(RequestFieldError, match=f"needs {missing} beside it"):
        luck_of({kept: FIELDS[kept]})


@pytest.mark.parametrize("params", [None, {}, {"tpot_slo_ms": 5}, "text"])
def test_a_request_need_not_bring_any(params: Any) -> None:
    assert luck_of(params) is None


def test_lengths_are_all_or_those_configured() -> None:
    assert EmulationConfig().lengths(4) == (0, 1, 2, 3, 4)
    assert EmulationConfig(draft_lengths="1,3,7").lengths(7) == (1, 3, 7)
    assert len(EmulationConfig().lengths(255)) == 64
    with pytest.raises(ConfigurationError, match="give --speculative-num-steps 7, not 5"):
        EmulationConfig(draft_lengths="1,3,7").lengths(5)


@pytest.mark.parametrize("text", ["3,1", "0", "1,1", "a", "-1,2", "0,1,", "1,256"])
def test_bad_lengths_are_explained(text: str) -> None:
    named = {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_DRAFT_LENGTHS": text}
    with pytest.raises(ConfigurationError, match=r"DRAFT_LENGTHS: .* is no list of lengths"):
        load(named)
