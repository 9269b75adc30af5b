"""Synthetic workloads: equal seeds, independent draws, the distributions that were asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from governor_workloads.errors import WorkloadError
from governor_workloads.generator import generate
from governor_workloads.mix import Mix, read_mix
from hypothesis import given, settings
from hypothesis import strategies as st

BASE: dict[str, Any] = {
    "arrivals": {"kind": "poisson", "rate_per_s": 5.0},
    "requests": 50,
    "prompt_tokens": {"kind": "lognormal", "mean": 200.0, "cv": 1.0, "min": 4, "max": 2000},
    "output_tokens": {"kind": "uniform", "min": 10, "max": 20},
    "branching_share": 0.5,
    "widths": [[2, 1.0], [8, 3.0]],
    "branch_tokens": {"kind": "constant", "tokens": 33},
    "targets": [{"tpot_slo_s": 0.05}, {"weight": 3.0, "ttft_slo_s": 1.0}],
}


def mix(**changes: Any) -> Mix:
    return Mix.of({**BASE, **changes})


def column(name: str, made: Mix, seed: int = 1) -> list[Any]:
    return [getattr(request, name) for request in generate(made, seed).requests]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**63), share=st.floats(0, 1), cv=st.floats(0.1, 5))
def test_equal_seeds_give_equal_workloads_in_order(seed: int, share: float, cv: float) -> None:
    made = mix(arrivals={"kind": "bursty", "rate_per_s": 5.0, "cv": cv}, branching_share=share)
    workload = generate(made, seed)
    assert workload == generate(made, seed)
    times = [request.arrival_s for request in workload.requests]
    assert times == sorted(times)
    assert [request.index for request in workload.requests] == list(range(50))
    assert workload.requests != generate(made, seed + 1).requests


def test_a_seed_means_the_same_for_ever() -> None:
    first = generate(mix(), 7).requests[0]
    assert first.arrival_s == pytest.approx(0.239468208)
    assert (first.prompt_tokens, first.output_tokens, first.branches) == (61, 19, 1)
    assert (first.tpot_slo_s, first.ttft_slo_s) == (None, 1.0)


@pytest.mark.parametrize(
    ("change", "may_change"),
    [
        ({"arrivals": {"kind": "poisson", "rate_per_s": 9.0}}, {"arrival_s"}),
        (
            {"arrivals": {"kind": "closed", "users": 3, "think_mean_s": 1.0}},
            {"arrival_s", "think_s"},
        ),
        ({"prompt_tokens": {"kind": "constant", "tokens": 9}}, {"prompt_tokens"}),
        ({"output_tokens": {"kind": "constant", "tokens": 9}}, {"output_tokens"}),
        ({"branch_tokens": {"kind": "constant", "tokens": 9}}, {"output_tokens"}),
        ({"branching_share": 0.9}, {"branches", "output_tokens"}),
        ({"widths": [[4, 1.0]]}, {"branches"}),
        ({"targets": []}, {"ttft_slo_s", "tpot_slo_s"}),
        ({"branching_targets": [{"tpot_slo_s": 9.0}]}, {"ttft_slo_s", "tpot_slo_s"}),
    ],
)
def test_a_changed_attribute_leaves_all_other_draws_alone(
    change: dict[str, Any], may_change: set[str]
) -> None:
    changed = set()
    for name in generate(mix(), 1).requests[0].__struct_fields__:
        if column(name, mix()) != column(name, mix(**change)):
            changed.add(name)
    assert changed == may_change


def test_more_requests_continue_the_same_workload() -> None:
    assert generate(mix(requests=80), 3).requests[:50] == generate(mix(), 3).requests


def test_a_larger_share_turns_requests_branching_and_none_back() -> None:
    few = column("branches", mix(branching_share=0.3))
    many = column("branches", mix(branching_share=0.7))
    assert all(wide == narrow for narrow, wide in zip(few, many, strict=True) if narrow > 1)
    assert sum(wide > 1 for wide in many) > sum(wide > 1 for wide in few)


def test_lengths_widths_and_targets_follow_their_distributions() -> None:
    made = mix(requests=20_000)
    requests = generate(made, 5).requests
    branching = [request for request in requests if request.branches > 1]
    serial = [request for request in requests if request.branches == 1]
    assert len(branching) / len(requests) == pytest.approx(0.5, abs=0.02)
    assert np.mean([item.branches == 8 for item in branching]) == pytest.approx(0.75, abs=0.02)
    assert {item.output_tokens for item in branching} == {33}
    assert {item.output_tokens for item in serial} == set(range(10, 21))
    assert np.mean([item.ttft_slo_s == 1.0 for item in requests]) == pytest.approx(0.75, abs=0.02)
    prompts = np.array([item.prompt_tokens for item in requests])
    assert prompts.min() >= 4
    assert prompts.max() <= 2000
    assert prompts.mean() == pytest.approx(200, rel=0.03)
    assert prompts.std() / prompts.mean() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("cv", [0.5, 1.0, 4.0])
def test_bursts_have_the_rate_and_the_variation_that_were_asked_for(cv: float) -> None:
    made = mix(arrivals={"kind": "bursty", "rate_per_s": 20.0, "cv": cv}, requests=40_000)
    gaps = np.diff([0.0, *column("arrival_s", made)])
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_phases_shift_the_rate() -> None:
    phases = [{"from_s": 100.0, "factor": 4.0}, {"from_s": 200.0, "factor": 0.5}]
    shifted = mix(requests=None, duration_s=300.0, phases=phases)
    times = np.array(column("arrival_s", shifted))
    counts = [np.sum((times >= start) & (times < start + 100)) for start in (0, 100, 200)]
    assert counts == pytest.approx([500, 2000, 250], rel=0.2)
    assert times[-1] < 300
    steady = column("arrival_s", mix(requests=None, duration_s=100.0))
    assert times[: counts[0]].tolist() == steady


def test_a_closed_loop_has_users_that_think() -> None:
    workload = generate(
        mix(arrivals={"kind": "closed", "users": 3, "think_mean_s": 2.0}, requests=20_000), 1
    )
    assert (workload.arrivals, workload.users) == ("closed", 3)
    assert np.mean([item.think_s for item in workload.requests]) == pytest.approx(2.0, rel=0.03)
    assert {item.arrival_s for item in workload.requests} == {0.0}


def test_the_description_holds_every_distribution() -> None:
    phases = [{"from_s": 7.0, "factor": 3.0}]
    branching = [{"tpot_slo_s": 0.125}]
    words = generate(mix(phases=phases, branching_targets=branching), 11).description
    for part in (
        "synthetic", "Poisson arrivals, 5 requests/s", "rate x3 from 7 s", "50 requests",
        "lognormal, mean 200 and cv 1", "4-2000", "uniform, 10-20", "0.5 of the requests branch",
        "2 (0.25), 8 (0.75)", "33 tokens", "TPOT 50 ms (0.25)", "TTFT 1 s (0.75)", "TPOT 125 ms",
        "seed 11",
    ):  # fmt: skip
        assert part in words


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bogus": 1}, "bogus"),
        ({"arrivals": {"kind": "never"}}, "arrivals.kind"),
        ({"arrivals": {"kind": "poisson", "rate_per_s": 0}}, "arrivals.rate_per_s"),
        ({"arrivals": {"kind": "bursty", "rate_per_s": 1.0, "cv": -1}}, "arrivals.cv"),
        ({"prompt_tokens": {"kind": "uniform", "min": 9, "max": 2}}, "prompt_tokens"),
        ({"output_tokens": {"kind": "constant", "tokens": 0}}, "output_tokens.tokens"),
        ({"branching_share": 1.5}, "branching_share"),
        ({"widths": []}, "widths"),
        ({"widths": [[1, 1.0]]}, "widths"),
        ({"targets": [{"tpot_slo_s": -1}]}, "targets"),
        ({"targets": [{"slo": 1}]}, "slo"),
        ({"duration_s": 10.0}, "duration_s"),
        ({"requests": None}, "duration_s"),
        ({"arrivals": {"kind": "closed", "users": 2}, "requests": None}, "requests"),
        ({"arrivals": {"kind": "closed", "users": 2}, "duration_s": 1.0}, "duration_s"),
        (
            {
                "arrivals": {"kind": "closed", "users": 2},
                "phases": [{"from_s": 1.0, "factor": 2.0}],
            },
            "phases",
        ),
        ({"phases": [{"from_s": 5.0, "factor": 1.0}, {"from_s": 5.0, "factor": 2.0}]}, "from_s"),
    ],
)
def test_a_bad_mix_is_refused_by_field(change: dict[str, Any], named: str) -> None:
    with pytest.raises(WorkloadError, match=named):
        mix(**change)


def test_ranges_hold_for_mixes_made_in_python_too() -> None:
    with pytest.raises(WorkloadError, match="branching_share"):
        generate(msgspec.structs.replace(mix(), branching_share=3.0), 1)
    with pytest.raises(WorkloadError, match="seed"):
        generate(mix(), -1)


def test_too_many_requests_are_refused_before_they_are_drawn() -> None:
    fast = {"kind": "poisson", "rate_per_s": 1e6}
    with pytest.raises(WorkloadError, match="duration_s"):
        generate(mix(arrivals=fast, requests=None, duration_s=1e6), 1)


def test_a_mix_file_is_read_back(tmp_path) -> None:
    path = tmp_path / "mix.json"
    path.write_bytes(msgspec.json.encode(mix()))
    assert read_mix(path) == mix()
    for text, named in ((b"{", "mix.json"), (b"\xff", "mix.json"), (b" " * (2 << 20), "larger")):
        path.write_bytes(text)
        with pytest.raises(WorkloadError, match=named):
            read_mix(path)
    with pytest.raises(WorkloadError, match="absent"):
        read_mix(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("change", "instead"),
    [
        ({"durations_s": 3}, "did you mean 'duration_s'?"),
        ({"arrivals": {"kind": "poisson", "rate": 5.0}}, "did you mean 'rate_per_s'?"),
        ({"arrivals": {"kind": "poison", "rate_per_s": 5.0}}, "did you mean 'poisson'?"),
        ({"targets": [{"tpot_slo_ms": 50}]}, "did you mean 'tpot_slo_s'?"),
        ({"xyzzy": 1}, "did you mean '"),
    ],
)
def test_a_misspelt_field_of_a_mix_is_answered_with_the_nearest(
    change: dict[str, Any], instead: str
) -> None:
    with pytest.raises(WorkloadError) as error:
        mix(**change)
    assert instead in str(error.value)


def test_a_key_that_a_mix_file_has_twice_is_an_error_with_its_lines(tmp_path) -> None:
    path = tmp_path / "mix.json"
    path.write_text('{\n "requests": 3,\n "name": "a",\n "requests": 4\n}')
    with pytest.raises(WorkloadError) as error:
        read_mix(path)
    said = "'requests' is set twice in one object (it is written in lines 2, 4); keep one"
    assert str(error.value) == f"{path}: {said}"
