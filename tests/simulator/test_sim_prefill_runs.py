"""Whole runs under prefill orders and with mixed chunks, and what the controller is told."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import pytest
from governor_protos.limits import MAX_QUEUED
from governor_protos.messages import QueueFlag, RowFlag, Snapshot, StepKind
from governor_sim.batching import EngineLimits
from governor_sim.drafting import DraftingConfig
from governor_sim.link import VirtualLink
from governor_sim.queueing import LOOKED_UP, QueueReader
from governor_sim.rows import SimRow
from governor_sim.simulate import SimConfig, SimResult, simulate
from governor_workloads.spec import Workload
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta
from sim_builders import NO_LATENCY, PROFILE, configs, request, row, run, workload, workloads
from sim_turns import batcher, turn

from controller_service.policies.base import Knob, Part, Policy, PolicyKind, PrefillPlan, StepPlan
from controller_service.policies.registry import parse_policy
from controller_service.predictors.base import StepLatencyPredictor
from controller_service.predictors.registry import make_predictor
from controller_service.state import StepState
from sglang_patch.requests import terms
from sglang_patch.rows import RowRecord

FEWER = settings(max_examples=25, deadline=None)
NORMAL = SimConfig(overlap=False)
NORMAL_MIXED = SimConfig(limits=EngineLimits(mixed_chunk=True), overlap=False)
LONG_BESIDE_SHORT = workload(
    *(request(index, 20, 200, arrival_s=0.01 * index) for index in range(6)),
    request(6, 24_000, 5, arrival_s=0.3),
    *(request(index, 30, 20, arrival_s=0.3) for index in range(7, 10)),
)


class Dice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: Annotated[int, Meta(ge=0)] = 0


def throw(
    state: StepState, predictor: StepLatencyPredictor, config: Dice, plan: StepPlan
) -> PrefillPlan:
    """Any budget, any order: what no policy would do, and every engine must bear."""
    queue = state.prefill
    if queue is None:
        raise AssertionError("the simulated engine has the knob")
    kept = 0 if queue.started < 0 or queue.mixes_chunks else queue.missing_tokens[queue.started]
    assert state.kv_used_tokens + kept <= state.kv_total_tokens
    rng = np.random.default_rng((config.seed, state.for_step))
    tokens = int(rng.choice([-1, 0, 0, 1, int(rng.integers(1, 200))]))
    named = rng.permutation(queue.waiting)[: rng.integers(0, queue.waiting + 1)]
    return PrefillPlan(tokens, first=named, late_tokens=int(rng.choice([-1, 0, 16])))


def random_orders(seed: int) -> Policy:
    dice = Part(PolicyKind("dice", throw, Dice, knob=Knob.PREFILL), Dice(seed))
    return Policy((*parse_policy("random:0.5:1").parts, dice), "dice")


def run_under(load: Workload, policy: Policy, config: SimConfig) -> SimResult:
    return simulate(load, PROFILE, policy, make_predictor("linear"), config)


def assert_all_served(load: Workload, result: SimResult) -> None:
    served = {item.index: item for item in result.served}
    for asked in load.requests:
        assert served[asked.index].finished
        assert served[asked.index].output_tokens == asked.total_output_tokens
    assert result.kv_held_tokens == 0


def mixing(config: SimConfig) -> SimConfig:
    limits = msgspec.structs.replace(config.limits, mixed_chunk=True)
    return msgspec.structs.replace(config, limits=limits)


@FEWER
@given(data=st.data())
def test_everybody_is_served_under_any_orders(data: st.DataObject) -> None:
    load = data.draw(workloads())
    config = data.draw(configs(load))
    if data.draw(st.booleans()):
        config = mixing(msgspec.structs.replace(config, overlap=False))
    elif data.draw(st.booleans()):
        drafting = DraftingConfig(lengths=(0, 1, 3), most_tokens=3)
        config = msgspec.structs.replace(config, drafting=drafting)
    result = run_under(load, random_orders(data.draw(st.integers(0, 99))), config)
    assert_all_served(load, result)


@FEWER
@given(data=st.data())
def test_everybody_is_served_by_an_ungoverned_engine_that_mixes(data: st.DataObject) -> None:
    load = data.draw(workloads())
    result = run(load, None, mixing(data.draw(configs(load))))
    assert_all_served(load, result)


@FEWER
@given(data=st.data())
def test_governing_a_mixing_engine_without_orders_changes_no_time(data: st.DataObject) -> None:
    load = data.draw(workloads())
    config = mixing(data.draw(configs(load)))
    config = msgspec.structs.replace(config, overlap=False, latency=NO_LATENCY)
    assert run(load, None, config).served == run(load, "eager", config).served


@pytest.mark.parametrize("mixed", [False, True])
def test_a_budget_holds_at_every_step_once_it_has_arrived(mixed: bool) -> None:
    config = SimConfig(limits=EngineLimits(mixed_chunk=mixed), overlap=False)
    result = run(LONG_BESIDE_SHORT, "fixed_chunk:512", config)
    tokens = result.steps.prefill_tokens
    assert tokens[1:].max() == 512  # the first step finds no decision
    assert tokens.sum() == run(LONG_BESIDE_SHORT, None, config).steps.prefill_tokens.sum()
    assert_all_served(LONG_BESIDE_SHORT, result)


def test_rows_that_ride_along_cost_what_the_profile_says() -> None:
    steps = run(LONG_BESIDE_SHORT, "fixed_chunk:512", NORMAL_MIXED).steps
    mixed = (steps.prefill_tokens > 0) & (steps.decoding > 0)
    assert mixed.sum() > 24_000 / 512 - 2
    assert (steps.rows[mixed] > steps.decoding[mixed]).all()
    expected = [
        PROFILE.step_s(rows, context, prefill)
        for rows, context, prefill in zip(
            steps.rows, steps.context_tokens, steps.prefill_tokens, strict=True
        )
    ]
    assert steps.seconds.tolist() == pytest.approx(expected)


def test_mixing_lets_rows_decode_while_a_long_prompt_comes_in() -> None:
    stock = SimConfig(limits=EngineLimits(chunked_prefill_size=512), overlap=False)
    apart, together = (
        run(LONG_BESIDE_SHORT, None, stock),
        run(LONG_BESIDE_SHORT, None, mixing(stock)),
    )

    def longest_gap_s(result: SimResult) -> float:
        return float(np.diff(result.steps.end_s[result.steps.decoding > 0]).max())

    assert longest_gap_s(apart) > 24_000 / 512 * PROFILE.fixed_s
    assert longest_gap_s(together) < 0.1


def test_what_mixed_chunks_do_not_go_with_is_refused_by_name() -> None:
    limits = EngineLimits(mixed_chunk=True)
    with pytest.raises(ValueError, match="mixed_chunk: SGLang switches it off under speculation"):
        SimConfig(limits=limits, drafting=DraftingConfig(lengths=(0, 1), most_tokens=1))
    overlapping = SimConfig(limits=limits)
    with pytest.raises(ValueError, match="mixed_chunk in the overlap loop"):
        run(LONG_BESIDE_SHORT, "eager", overlapping)
    assert_all_served(LONG_BESIDE_SHORT, run(LONG_BESIDE_SHORT, None, overlapping))


@pytest.mark.parametrize("config", [SimConfig(), NORMAL_MIXED])
def test_the_controller_sees_who_waits(config: SimConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = listen(monkeypatch)
    limits = msgspec.structs.replace(config.limits, chunked_prefill_size=8192)
    run(LONG_BESIDE_SHORT, "eager", msgspec.structs.replace(config, limits=limits))
    started = [
        item.queue
        for item in snapshots
        if item.queue.flags and item.queue.flags[0] & QueueFlag.STARTED
    ]
    assert started
    missing = [int(np.frombuffer(queue.missing_tokens, np.int32)[0]) for queue in started]
    assert missing == sorted(missing, reverse=True)
    assert all(0 < tokens < 24_000 - 8000 for tokens in missing)
    assert 4 in {len(queue) for queue in started}
    kinds = {item.kind for snapshot in snapshots for item in snapshot.feedback}
    assert (StepKind.MIXED in kinds) == config.limits.mixed_chunk


@pytest.mark.parametrize("config", [SimConfig(), NORMAL_MIXED])
def test_a_prompt_that_waits_in_its_middle_is_still_among_the_rows(
    config: SimConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = listen(monkeypatch)
    run_under(LONG_BESIDE_SHORT, random_orders(3), config)
    told = set()
    for snapshot in snapshots:
        queue, rows = snapshot.queue, snapshot.rows
        if not queue.flags or not queue.flags[0] & QueueFlag.STARTED:
            continue
        ids = np.frombuffer(rows.request_id, np.uint32).tolist()
        at = ids.index(np.frombuffer(queue.request_id, np.uint32)[0])
        assert rows.flags[at] & RowFlag.UNBORN
        told.update(item.kind for item in snapshot.feedback)
    assert StepKind.DECODE in told, "it was held, and is told of all the same"


def test_memory_in_use_is_what_the_rows_have_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = listen(monkeypatch)
    # With mixed chunks nobody sits a step out, so every row's last token is computed in it.
    run_under(LONG_BESIDE_SHORT, random_orders(4), NORMAL_MIXED)
    assert snapshots
    for snapshot in snapshots:
        queue, rows = snapshot.queue, snapshot.rows
        held = np.frombuffer(rows.context_tokens, np.int32).sum()
        if queue.flags and queue.flags[0] & QueueFlag.STARTED:
            held -= np.frombuffer(queue.missing_tokens, np.int32)[0]
        assert snapshot.kv_used_tokens == held


def test_a_branch_that_rides_along_has_sat_out_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshots = listen(monkeypatch)
    load = workload(
        request(0, 20, 200, branches=6),
        *(request(index, 400, 5, arrival_s=0.1 * index) for index in range(1, 10)),
    )
    run_under(load, random_orders(5), NORMAL_MIXED)
    kinds = {item.step: item.kind for snapshot in snapshots for item in snapshot.feedback}
    sat_out = dict.fromkeys(StepKind, 0)
    for snapshot in snapshots:
        if (kind := kinds.get(snapshot.for_step - 1)) is not None:
            sat_out[StepKind(kind)] += sum(np.frombuffer(snapshot.rows.parked_steps, np.int32))
    assert StepKind.MIXED in kinds.values()
    assert sat_out[StepKind.DECODE] > 0 == sat_out[StepKind.MIXED]


def listen(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """What the controller will be asked."""
    snapshots: list[Snapshot] = []
    ask = VirtualLink.ask

    def listening(self: VirtualLink, snapshot: Snapshot, now_s: float) -> bool:
        snapshots.append(snapshot)
        return ask(self, snapshot, now_s)

    monkeypatch.setattr(VirtualLink, "ask", listening)
    return snapshots


def test_a_queue_is_told_with_what_the_cache_holds_taken_off() -> None:
    engine = batcher()
    engine.waiting.append(row(0, 70, 1, (1, 2), 32))
    turn(engine)
    late = [row(index, 70, 1, (1, 2), 32) for index in range(1, 2000)]
    engine.waiting.extend([row(2000, 70), *late])
    reader = QueueReader(engine, record_of)
    table = reader.read()
    assert table.missing_tokens == [70, *[6] * (MAX_QUEUED - 1)]
    assert [record.rid for record in table.records] == [
        item.rid for item in list(engine.waiting)[:MAX_QUEUED]
    ]
    engine.kv.take(row(3000, 1), 9_999)  # evicts
    seen = [sum(tokens == 70 for tokens in reader.read().missing_tokens) for _ in range(200)]
    assert seen[0] == 2 * LOOKED_UP, "a bounded number is looked up again"
    assert seen[-1] == MAX_QUEUED


def test_a_retracted_request_is_looked_up_anew() -> None:
    engine = batcher(kv_tokens=42)
    rows = [row(0, 20, 50), row(1, 19, 50)]
    engine.waiting.extend(row(index, 300) for index in range(2, 2 + 2 * LOOKED_UP))
    for item, output in zip(rows, (5, 3), strict=True):
        engine.kv.admit(item)
        engine.kv.take(item, 20)
        item.missing_tokens = 20
        item.output_tokens = output
        engine.running.append(item)
    engine.kv.take(rows[0], 1)
    engine.make_room()
    table = QueueReader(engine, record_of).read()
    assert table.records[-1].rid == "1"
    assert (table.missing_tokens[-1], table.output_tokens[-1]) == (19 + 3, 3)


def record_of(item: SimRow) -> RowRecord:
    return RowRecord(1, item.rid, 0, terms(None), 0.0)
