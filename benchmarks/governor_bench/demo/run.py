"""The demo: real controller, engine and HTTP, a GPU's step times, three policies in turns."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from governor_profiles import load_profile
from rich.console import Console

from governor_bench.demo.measure import Summary, Turn, summarise_policy
from governor_bench.demo.plot import plot_turns
from governor_bench.demo.table import render, terms
from governor_bench.demo.verdict import judge
from governor_bench.demo.workload import DemoLoad
from governor_bench.envelope import Stopwatch, envelope, write_json
from governor_bench.eval.emulated_pair import EmulatedPair, emulated_pair

POLICIES = OFF, STOCK, GOVERNED = ("off", "eager", "taper_plus")
PROFILE = "qwen3-32b-h200"
PREDICTOR = "corrected-linear"
SCALE = 2.0
"""By which the emulated GPU is slower than the real one, so that the host keeps up with it."""
CHUNK_TOKENS = 2048
MOST_ROWS = 256
PIPE_WIDTH = 100
SPARE_TURNS = 6
"""Void turns that are played again, in all."""


class Settings(msgspec.Struct, frozen=True):
    """What may be chosen."""

    rounds: int = 2
    """Turns of each policy."""
    scale: float = SCALE
    load: DemoLoad = DemoLoad()
    quick: bool = False


def run(folder: Path, settings: Settings, json_path: str) -> None:
    """Run the demo and write ``report.json`` and ``turns.png`` into ``folder``."""
    console = _console(stderr=json_path == "-")
    stopwatch = Stopwatch()

    def say(stage: str) -> None:
        console.print(f"[{stopwatch.seconds():4.0f} s] {stage}", markup=False, soft_wrap=True)

    with emulated_pair(
        PROFILE,
        PREDICTOR,
        settings.scale,
        say,
        arguments=("--chunked-prefill-size", str(CHUNK_TOKENS)),
        most_rows=MOST_ROWS,
    ) as pair:
        turns = play(pair, settings, say)
    _report(console, folder, turns, settings, stopwatch, json_path)


def play(pair: EmulatedPair, settings: Settings, say: Callable[[str], None]) -> list[Turn]:
    """Warm up, then play ``rounds`` turns of each policy, and void ones again while there are
    spare turns.

    Returns:
        All turns in the order in which they were played, void ones among them.
    """
    say("warming up: the controller learns what a step costs")
    pair.serve("eager", settings.load.warm_up(), keep_cache=True)
    # The order rotates, so that no policy always follows the same one.
    due = [
        (number + 1, POLICIES[(number + offset) % len(POLICIES)])
        for number in range(settings.rounds)
        for offset in range(len(POLICIES))
    ]
    spare = SPARE_TURNS
    turns: list[Turn] = []
    numbers = itertools.count(1)
    while due:
        seed, policy = due.pop(0)
        turn = _turn(pair, settings.load, policy, seed, next(numbers))
        turns.append(turn)
        kept = sum(chat.meets_targets for chat in turn.chats)
        again = turn.held_up.too_far and spare > 0
        if again:
            spare -= 1
            due.append((seed, policy))
        say(
            f"round {seed} of {settings.rounds}, {policy}: {kept} of {len(turn.chats)} chats kept "
            f"their target; the host held the device up for {turn.held_up.time_share:.1%}"
            + (f"; void{', to be played again' if again else ''}")
            * turn.held_up.too_far
        )
    return turns


def _turn(pair: EmulatedPair, load: DemoLoad, policy: str, seed: int, number: int) -> Turn:
    seen = pair.observe(policy, load.turn(seed, number), keep_cache=True)
    return Turn.of(
        policy,
        seed,
        load.judged(seen.served),
        seen.device,
        seen.counted,
        seen.steps,
        pair.turnaround_us(),
        seen.took_s,
        os.getloadavg()[0],
    )


def _report(
    console: Console,
    folder: Path,
    turns: list[Turn],
    settings: Settings,
    stopwatch: Stopwatch,
    json_path: str,
) -> None:
    load = settings.load
    summaries = [summarise_policy(policy, turns) for policy in POLICIES]
    off, stock, governed = summaries
    verdict = judge(off, stock, governed, turns, load.promised_ms)
    report = {
        "verdict": verdict.outcome.value,
        "sentence": verdict.sentence,
        "policies": msgspec.to_builtins(summaries),
        "workload": load.describe(),
        "turns": [turn.in_short() for turn in turns],
        **envelope(
            tier="E",
            seeds=sorted({turn.seed for turn in turns}),
            arguments={
                "profile": PROFILE,
                "scale": settings.scale,
                "rounds": settings.rounds,
                "quick": settings.quick,
            },
            stopwatch=stopwatch,
        ),
    }
    write_json(report, str(folder / "report.json"))
    if json_path:
        write_json(report, json_path)
    plot_turns(_shown(turns), settings.scale, load.promised_ms, folder / "turns.png")
    show(console, summaries, report)
    written = f"Report: {folder / 'report.json'}. Plot: {folder / 'turns.png'}."
    console.print(written, highlight=False, soft_wrap=True)
    conclude(console, report)


def show(console: Console, summaries: list[Summary], report: dict[str, Any]) -> None:
    """Print the table, its terms and the load."""
    console.print(title_of(report), highlight=False)
    console.print(render(summaries))
    console.print(terms(), highlight=False)
    console.print(f"Load: {report['workload']}.", highlight=False)


def conclude(console: Console, report: dict[str, Any]) -> None:
    """Print the verdict: a line that is easily found, then what a user gets."""
    console.print(f"verdict: {report['verdict']}", highlight=False)
    console.print(report["sentence"], highlight=False)


def title_of(report: dict[str, Any]) -> str:
    """Which GPU is shown, and where its step times come from."""
    arguments = report["arguments"]
    profile = load_profile(arguments["profile"])
    known = "measured" if profile.measured else "modelled, not measured"
    return (
        f"Stock SGLang with the step times of {profile.name} ({known}), "
        f"slowed down {arguments['scale']:g} times. All times are the GPU's."
    )


def _console(*, stderr: bool) -> Console:
    """A terminal as it is; a pipe or a file as wide as the table."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=PIPE_WIDTH)


def _shown(turns: list[Turn]) -> list[Turn]:
    """The first turn of each policy that counts, or its first one."""
    shown = []
    for policy in POLICIES:
        mine = [turn for turn in turns if turn.policy == policy]
        shown.append(next((turn for turn in mine if not turn.held_up.too_far), mine[0]))
    return shown
