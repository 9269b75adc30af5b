"""Virtual time against sums done by hand."""

from __future__ import annotations

import pytest
from governor_sim.simulate import SimConfig
from governor_sim.timing import HostTimes
from hypothesis import given
from hypothesis import strategies as st
from sim_builders import PROFILE, request, run, workload

HOST = HostTimes()
POLICIES = [None, "taper_plus"]


def step_s(rows: int, context: int, prefill: int = 0) -> float:
    return PROFILE.step_s(rows, context, prefill)


def decodes_s(rows: int, prompt: int, output: int) -> float:
    """All steps of ``rows`` rows with one prompt after the one that brought the prompt in."""
    return sum(step_s(rows, rows * (prompt + done)) for done in range(1, output))


@given(prompt=st.integers(1, 500), output=st.integers(1, 40))
def test_a_lone_request_in_the_overlap_loop_waits_for_the_device_alone(
    prompt: int, output: int
) -> None:
    (served,) = run(workload(request(0, prompt, output)), None).served
    # The device has a cached token's cost of a prompt of one token: that of a row.
    first_s = step_s(1, prompt, prompt if prompt > 1 else 0)
    ready_s = HOST.request_s + HOST.plan(1) + first_s
    assert served.first_token_s == pytest.approx(ready_s + HOST.reply_s)
    assert served.last_token_s == pytest.approx(
        ready_s + decodes_s(1, prompt, output) + HOST.reply_s
    )


@given(prompt=st.integers(2, 500), output=st.integers(1, 40))
def test_a_lone_request_in_the_normal_loop_waits_for_the_host_too(prompt: int, output: int) -> None:
    (served,) = run(workload(request(0, prompt, output)), None, SimConfig(overlap=False)).served
    ready_s = HOST.request_s + HOST.plan(1) + step_s(1, prompt, prompt)
    between_s = (output - 1) * (HOST.plan(1) + HOST.process(1))
    assert served.first_token_s == pytest.approx(ready_s + HOST.reply_s)
    assert served.last_token_s == pytest.approx(
        ready_s + between_s + decodes_s(1, prompt, output) + HOST.reply_s
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_four_branches_in_the_overlap_loop(policy: str | None) -> None:
    (served,) = run(workload(request(0, 100, 20, branches=4)), policy).served
    # SGLang prefills the prompt, learns a step later that this is all, and then gets the branches,
    # which find all of the prompt but its last token in the cache.
    warm_s = HOST.request_s + HOST.plan(1) + step_s(1, 100, 100) + step_s(1, 101)
    first_s = warm_s + HOST.process(1) + HOST.plan(4) + step_s(4, 400)
    assert served.first_token_s == pytest.approx(first_s + HOST.reply_s)
    assert served.last_token_s == pytest.approx(first_s + decodes_s(4, 100, 20) + HOST.reply_s)
    assert served.output_tokens == 80


def test_four_branches_in_the_normal_loop() -> None:
    config = SimConfig(overlap=False)
    (served,) = run(workload(request(0, 100, 20, branches=4)), None, config).served
    warm_s = HOST.request_s + HOST.plan(1) + step_s(1, 100, 100)
    # The engine is idle when the branches come.
    back_s = HOST.reply_s
    assert back_s > HOST.process(1)
    first_s = warm_s + back_s + HOST.plan(4) + step_s(4, 400)
    between_s = 19 * (HOST.plan(4) + HOST.process(4))
    assert served.first_token_s == pytest.approx(first_s + HOST.reply_s)
    assert served.last_token_s == pytest.approx(
        first_s + between_s + decodes_s(4, 100, 20) + HOST.reply_s
    )


def test_a_prefill_delays_those_who_decode() -> None:
    alone = run(workload(request(0, 10, 40)), None).served[0]
    load = workload(request(0, 10, 40), request(1, 1000, 1, arrival_s=0.1))
    beside = run(load, None).served
    first = next(item for item in beside if item.index == 0)
    assert (first.last_token_s or 0.0) - (alone.last_token_s or 0.0) == pytest.approx(
        # its prefill, and the row that runs once more before its end is known
        step_s(1, 1000, 1000) + step_s(2, 1001) - step_s(1, 0)
    )


def test_a_slow_host_limits_the_overlap_loop_and_is_told() -> None:
    slow = HostTimes(plan_s=0.05)
    load = workload(request(0, 10, 20))
    quick, limited = run(load, None), run(load, None, SimConfig(host=slow))
    assert quick.host_limited_s == 0.0
    assert limited.host_limited_s > 0.5
    assert limited.virtual_s > 20 * slow.plan_s
