"""What the demo concludes, on turns made by hand."""

from __future__ import annotations

import io

import msgspec
import pytest
from governor_bench.demo.measure import HeldUp, Summary, Turn, summarise_policy
from governor_bench.demo.table import ROWS, render, terms
from governor_bench.demo.verdict import Outcome, Verdict, judge
from governor_bench.engine_metrics import GovernorCounters
from governor_bench.readme import demo_block
from governor_workloads.served import Served
from rich.console import Console

TARGET_S = 0.05


def device(steps: float, held_up: float, late_steps: float) -> dict[str, float]:
    """What an emulated device counts that was held up for a share of its time."""
    return {
        "governor_emulated_steps_total": steps,
        "governor_emulated_host_limited_steps_total": late_steps,
        "governor_emulated_busy_seconds_total": 100.0 * (1.0 - held_up),
        "governor_emulated_host_limited_seconds_total": 100.0 * held_up,
    }


def turn(policy: str, kept: int, of: int, latency_s: float, held_up: float = 0.01) -> Turn:
    """A turn in which so many chats kept their target and branching requests took so long."""
    chats = [
        Served(
            index=number,
            branches=1,
            ttft_slo_s=None,
            tpot_slo_s=TARGET_S,
            sent_s=0.0,
            first_token_s=1.0,
            last_token_s=1.0 + 100 * (0.04 if number < kept else 0.07),
            output_tokens=101,
        )
        for number in range(of)
    ]
    branching = Served(100, 16, None, TARGET_S, 0.0, 0.1, latency_s, 320)
    return Turn.of(
        policy,
        1,
        [*chats, branching],
        device(1000.0, held_up, 310.0),
        GovernorCounters({"applied": 9, "late": 1}, {"late": 1}, 7, 0, 0, True),
        [],
        {"p50": 100.0, "p99": 300.0},
        10.0,
        4.0,
    )


def verdict(off: Turn, stock: Turn, governed: Turn, *more: Turn) -> Verdict:
    turns = [off, stock, governed, *more]
    one, two, three = (summarise_policy(p, turns) for p in ("off", "eager", "taper_plus"))
    return judge(one, two, three, turns, 50.0)


OFF, STOCK = turn("off", 50, 50, 9.5), turn("eager", 4, 50, 2.0)


def test_both_are_kept() -> None:
    found = verdict(OFF, STOCK, turn("taper_plus", 49, 50, 4.5))
    assert found.outcome == Outcome.KEEPS_BOTH
    assert found.sentence == (
        "With Governor 49 of 50 chats kept their 50 ms per token, and branching requests took "
        "4.5 s instead of 9.5 s; stock SGLang kept 4 of 50 chats, and its branching requests took "
        "2.0 s."
    )


def test_chats_are_kept_and_branches_are_as_slow_as_alone() -> None:
    found = verdict(OFF, STOCK, turn("taper_plus", 50, 50, 9.0))
    assert found.outcome == Outcome.KEEPS_CHATS_ONLY
    assert "took 9.0 s, hardly less than the 9.5 s" in found.sentence


def test_some_chats_are_kept() -> None:
    found = verdict(OFF, STOCK, turn("taper_plus", 26, 50, 4.5))
    assert found.outcome == Outcome.HELPS
    assert "kept less than it should: with it 26 of 50 chats" in found.sentence
    assert "without it 4 of 50" in found.sentence


@pytest.mark.parametrize("kept", [0, 4, 8])
def test_no_more_chats_are_kept_than_without(kept: int) -> None:
    found = verdict(OFF, STOCK, turn("taper_plus", kept, 50, 4.5))
    assert found.outcome == Outcome.NO_HELP
    assert f"with it {kept} of 50 chats kept their 50 ms per token, without it 4 of 50" in (
        found.sentence
    )


def test_there_is_nothing_to_govern() -> None:
    found = verdict(OFF, turn("eager", 50, 50, 2.0), turn("taper_plus", 50, 50, 2.0))
    assert found.outcome == Outcome.NO_NEED
    assert "stock SGLang kept 50 of 50 chats" in found.sentence


def test_a_host_that_was_too_slow_is_no_verdict_on_governor() -> None:
    found = verdict(OFF, STOCK, turn("taper_plus", 0, 50, 20.0, held_up=0.12))
    assert found.outcome == Outcome.VOID
    assert "Void: the host held the device up in 31% of steps, for 12% of its time" in (
        found.sentence
    )
    assert "--scale" in found.sentence


def test_a_void_turn_does_not_count_once_it_was_played_again() -> None:
    void, again = turn("taper_plus", 0, 50, 20.0, held_up=0.12), turn("taper_plus", 50, 50, 4.5)
    found = verdict(OFF, STOCK, void, again)
    assert found.outcome == Outcome.KEEPS_BOTH
    assert "With Governor 50 of 50 chats" in found.sentence
    summary = summarise_policy("taper_plus", [void, again])
    assert (summary.turns, summary.void_turns) == (1, 1)


def test_a_chat_that_failed_was_not_kept() -> None:
    failed = Served(0, 1, None, TARGET_S, 0.0, error="HTTP 500")
    counters = GovernorCounters({}, {}, 0, 0, 0, True)
    one = Turn.of("off", 1, [failed], {}, counters, [], {"p50": 0.0, "p99": 0.0}, 1.0, 0.0)
    summary = summarise_policy("off", [one])
    assert (summary.chats, summary.chats_kept) == (1, 0)


def test_a_device_that_ran_no_step_was_not_held_up() -> None:
    assert HeldUp.of({}) == HeldUp(0.0, 0.0)
    assert not HeldUp.of({}).too_far


def summary() -> Summary:
    return summarise_policy("taper_plus", [turn("taper_plus", 49, 50, 4.5)])


def test_every_figure_of_the_table_is_shown() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(render([summary()]))
    text = out.getvalue()
    assert "with Governor" in text
    assert "49 of 50" in text
    for label, _ in ROWS:
        assert label in text


def test_terms_of_the_table_are_explained() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(terms())
    for term in ("TPOT", "goodput", "parked", "latency", "held up", "governed step", "row"):
        assert any(term in label for label, _ in ROWS)
        assert f"{term}  " in out.getvalue()


def test_the_readme_shows_what_the_demo_prints() -> None:
    report = {
        "verdict": "keeps both",
        "sentence": "With Governor 49 of 50 chats kept their 50 ms per token.",
        "policies": [msgspec.to_builtins(summary())],
        "workload": "in each turn 25 chats",
        "arguments": {"profile": "qwen3-32b-h200", "scale": 2.0},
        "machine": {"cpus": 2, "machine": "x86_64"},
        "seconds": 150.0,
    }
    block = demo_block(report)
    for text in ("49 of 50", "step times of qwen3-32b-h200 (modelled", "verdict: keeps both"):
        assert text in block
    assert block.rstrip("`\n").endswith(report["sentence"])
