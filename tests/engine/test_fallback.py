"""The fallback ladder and the circuit breaker."""

from __future__ import annotations

from governor_protos.messages import Decision, Outcome
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.breaker import BreakerState, CircuitBreaker
from sglang_patch.fallback import FallReason, Rung, find_footing

reasons = st.sampled_from(list(FallReason))


def decision(for_step: int, lease: int) -> Decision:
    return Decision(for_step, lease, b"", [], "taper", 0, 0, 0, 0)


def test_the_rungs_in_order() -> None:
    made = decision(10, 3)
    assert find_footing(10, made, FallReason.NO_REPLY).rung is Rung.DECISION
    assert find_footing(11, made, FallReason.NO_REPLY) == (
        Rung.ORDERS,
        Outcome.LATE,
        FallReason.LATE,
    )
    assert find_footing(12, made, FallReason.NO_REPLY).rung is Rung.ORDERS
    assert find_footing(13, made, FallReason.NO_REPLY) == (
        Rung.STOCK,
        Outcome.STALE,
        FallReason.STALE,
    )
    assert find_footing(13, made, FallReason.BREAKER_OPEN).reason is FallReason.BREAKER_OPEN
    assert find_footing(5, None, FallReason.DISCONNECTED) == (
        Rung.STOCK,
        Outcome.NONE,
        FallReason.DISCONNECTED,
    )
    assert find_footing(11, made, FallReason.INVALID).outcome is Outcome.INVALID


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 64), reasons)
def test_only_a_decision_for_this_very_step_counts_as_applied(
    step: int, made_for: int, lease: int, trouble: FallReason
) -> None:
    footing = find_footing(step, decision(made_for, lease), trouble)
    assert (footing.outcome is Outcome.APPLIED) == (step == made_for)
    assert (footing.reason is None) == (step == made_for)
    if made_for > step or step - made_for >= lease:
        assert footing.rung is Rung.STOCK


def test_breaker_opens_probes_and_closes() -> None:
    breaker = CircuitBreaker(misses_to_open=3, probe_interval_s=1.0)
    assert not breaker.record_miss(0.0)
    assert not breaker.record_miss(0.0)
    assert breaker.allows_question()
    assert breaker.record_miss(0.0)
    assert not breaker.allows_question()
    assert not breaker.take_probe(0.5)
    assert breaker.take_probe(1.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allows_question()
    assert not breaker.take_probe(1.5)
    assert breaker.take_probe(2.5)
    assert breaker.record_answer()
    assert breaker.allows_question()


def test_an_answer_forgives_earlier_misses() -> None:
    breaker = CircuitBreaker(misses_to_open=2, probe_interval_s=1.0)
    for _ in range(10):
        breaker.record_miss(0.0)
        breaker.record_answer()
    assert breaker.allows_question()
    assert breaker.openings == 0


@given(st.lists(st.sampled_from(["miss", "answer", "probe"]), max_size=60))
def test_breaker_never_asks_while_open(events: list[str]) -> None:
    breaker, now_s = CircuitBreaker(3, 1.0), 0.0
    for event in events:
        now_s += 0.4
        if event == "miss":
            breaker.record_miss(now_s)
        elif event == "answer":
            breaker.record_answer()
        else:
            breaker.take_probe(now_s)
        assert breaker.allows_question() == (breaker.state is BreakerState.CLOSED)
