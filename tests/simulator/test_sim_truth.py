"""Noise, a changed machine, and what a simulated engine reports for others to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from governor_profiles import Bends, Shift, StepProfile
from governor_protos.messages import EndReason, RequestEnd, Snapshot, StepFeedback, StepKind
from governor_sim import simulate as simulate_module
from governor_sim.clairvoyant import TruePredictor, clairvoyant
from governor_sim.link import VirtualLink
from governor_sim.simulate import SimConfig, SimResult, simulate
from hypothesis import given
from hypothesis import strategies as st
from msgspec import ValidationError, structs
from sim_builders import PROFILE, request, run, workload

from controller_service.policies.registry import parse_policy
from controller_service.predictors.registry import make_predictor

BENT = structs.replace(
    PROFILE, bends=Bends((1, 2, 4, 8, 16), tile_rows=4, tile_s=1e-3, knee_tokens=500)
)
BUSY = workload(
    *(
        request(index, 40 + index, 60 + index % 9, arrival_s=0.02 * index, branches=branches)
        for index, branches in enumerate([1, 4, 1, 3, 1, 2])
    ),
    request(6, 50, 300),  # outlives the others, so that their ends still travel
)


class ToldLink(VirtualLink):
    """Keeps what passes."""

    snapshots: list[Snapshot]

    def ask(self, snapshot: Snapshot, now_s: float) -> bool:
        self.snapshots.append(snapshot)
        return super().ask(snapshot, now_s)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    kept: list[Snapshot] = []
    monkeypatch.setattr(ToldLink, "snapshots", kept, raising=False)
    monkeypatch.setattr(simulate_module, "VirtualLink", ToldLink)
    return kept


def ends(snapshots: list[Snapshot]) -> list[RequestEnd]:
    return [end for snapshot in snapshots for end in snapshot.ended]


def feedback(snapshots: list[Snapshot]) -> list[StepFeedback]:
    return [step for snapshot in snapshots for step in snapshot.feedback]


def residuals(result: SimResult, profile: StepProfile = PROFILE) -> Any:
    """Decode steps' times over the profile's."""
    steps = result.steps
    decodes = steps.prefill_tokens == 0
    truth = [
        profile.step_s(int(rows), int(context))
        for rows, context in zip(steps.rows[decodes], steps.context_tokens[decodes], strict=True)
    ]
    return steps.seconds[decodes] / truth


def test_noise_has_its_spread_and_follows_the_seed() -> None:
    config = SimConfig(noise=0.05)
    one = simulate(BUSY, PROFILE, None, None, config, seed=1)
    same = simulate(BUSY, PROFILE, None, None, config, seed=1)
    other = simulate(BUSY, PROFILE, None, None, config, seed=2)
    assert one.served == same.served != other.served
    assert np.std(residuals(one)) == pytest.approx(0.05, rel=0.2)
    assert np.mean(residuals(one)) == pytest.approx(1.0, abs=0.01)


def test_a_shift_changes_the_machine_from_its_step_on() -> None:
    config = SimConfig(shift=Shift(at_step=100, factor=2.0))
    steps = run(BUSY, None, config).steps
    factors = steps.seconds / [
        PROFILE.step_s(int(rows), int(context), int(prefill))
        for rows, context, prefill in zip(
            steps.rows, steps.context_tokens, steps.prefill_tokens, strict=True
        )
    ]
    decodes = steps.prefill_tokens == 0
    assert factors[:99][decodes[:99]] == pytest.approx(1.0)
    assert factors[99:][decodes[99:]] == pytest.approx(2.0)


def test_bad_noise_and_shifts_are_refused() -> None:
    from msgspec import convert

    for bad in ({"noise": -0.1}, {"noise": 0.5}, {"shift": {"at_step": 0, "factor": 2}}):
        with pytest.raises(ValidationError, match=r"noise|at_step"):
            convert(bad, SimConfig)


@pytest.mark.parametrize("overlap", [True, False])
def test_each_row_ends_once_and_warm_ups_do_not(told: list[Snapshot], overlap: bool) -> None:
    result = run(BUSY, "taper_plus", SimConfig(overlap=overlap))
    assert all(item.finished for item in result.served)
    expected = sorted(
        (item.prompt_tokens, item.output_tokens)
        for item in BUSY.requests[:-1]
        for _ in range(item.branches)
    )
    assert sorted((end.prompt_tokens, end.output_tokens) for end in ends(told)) == expected
    assert len({end.request_id for end in ends(told)}) == len(expected)
    assert all(end.reason == EndReason.LENGTH for end in ends(told))
    assert all(end.output_tokens == end.max_new_tokens for end in ends(told))
    assert all(end.age_s > 0 for end in ends(told))


def test_with_a_limit_above_what_is_said_a_row_stops_by_itself(told: list[Snapshot]) -> None:
    limited = run(BUSY, "eager", SimConfig(max_new_tokens=64))
    assert limited.served == run(BUSY, "eager").served
    for end in ends(told)[: len(ends(told)) // 2]:
        assert end.max_new_tokens == max(64, end.output_tokens)
        stopped = end.output_tokens < end.max_new_tokens
        assert end.reason == (EndReason.STOPPED if stopped else EndReason.LENGTH)
    assert {end.reason for end in ends(told)} == {EndReason.STOPPED, EndReason.LENGTH}


def test_feedback_of_a_busy_overlap_engine_is_the_devices_time(told: list[Snapshot]) -> None:
    config = SimConfig(noise=0.02)
    predictor = make_predictor("linear")
    result = simulate(BUSY, BENT, parse_policy("eager"), predictor, config)
    steps = [step for step in feedback(told) if step.kind == StepKind.DECODE]
    device_s = [result.steps.seconds[step.step - 1] for step in steps]
    errors = np.abs(np.array([step.latency_s for step in steps]) / device_s - 1.0)
    assert len(steps) > 200
    assert np.median(errors) < 1e-6
    assert residuals(result, BENT).std() == pytest.approx(0.02, rel=0.25)


@given(
    st.integers(0, 40), st.integers(0, 3000), st.integers(0, 64), st.sampled_from([PROFILE, BENT])
)
def test_the_true_predictor_knows_the_profile(
    rows: int, context: int, prefill: int, profile: StepProfile
) -> None:
    predictor = TruePredictor(profile, noise=0.01)
    mean_s = predictor.predict(float(rows), float(context), float(prefill))
    assert isinstance(mean_s, float)
    if rows:
        assert mean_s == pytest.approx(profile.step_s(rows, context, prefill))
    p90_s = predictor.predict_p90(float(rows), float(context), float(prefill))
    assert p90_s == pytest.approx(1.0128155 * mean_s)
    many = predictor.predict(np.array([rows, rows + 1.0]), np.array([context, context + 9.0]))
    assert many.shape == (2,)
    assert many[0] == pytest.approx(predictor.predict(float(rows), float(context)))
    assert many[1] >= many[0]


def test_the_bound_runs_on_a_bent_profile() -> None:
    load = workload(*(structs.replace(item, tpot_slo_s=0.03) for item in BUSY.requests))
    result = simulate(load, BENT, clairvoyant(), TruePredictor(BENT))
    assert all(item.finished for item in result.served)
