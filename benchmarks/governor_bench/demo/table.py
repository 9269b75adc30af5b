"""The demo's one table, and what its words mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from governor_bench.demo.measure import MOST_HELD_UP, Summary

NAMES = {"off": "one branch at a time", "eager": "stock SGLang", "taper_plus": "with Governor"}
"""Policies in words."""

ROWS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("chats that kept their target", lambda s: f"{s.chats_kept} of {s.chats}"),
    ("chat TPOT p50 / p99, ms", lambda s: f"{s.chat_tpot_p50_ms:.1f} / {s.chat_tpot_p99_ms:.1f}"),
    ("branching request, latency p50, s", lambda s: f"{s.branching_latency_p50_s:.2f}"),
    ("goodput, tok/s", lambda s: f"{s.goodput_tok_s:.0f}"),
    ("rows per governed step", lambda s: f"{s.mean_width:.1f}"),
    ("row-steps parked", lambda s: f"{s.parked_row_steps}"),
    (
        "step time, median error",
        lambda s: "-" if s.step_error_pct is None else f"{s.step_error_pct:.1f} %",
    ),
    ("decision p50 / p99, us", lambda s: f"{s.decision_p50_us:.0f} / {s.decision_p99_us:.0f}"),
    ("decisions in time", lambda s: f"{s.applied_share:.1%}"),
    ("device held up by the host", lambda s: f"{s.held_up.time_share:.1%}"),
    ("turns that count (void)", lambda s: f"{s.turns} ({s.void_turns})"),
)

TERMS: tuple[tuple[str, str], ...] = (
    ("p50 / p99", "half, and 99 of 100, are below this"),
    ("branching request", "one that asks for several samples (branches) of one prompt: n = 20"),
    ("row", "one sequence in the batch: a chat is one row, n = 20 samples are 20 rows"),
    (
        "parked",
        "a row that sits a step out. It keeps its memory and its place; its tokens stay the same",
    ),
    ("TPOT", "time per output token of one request, from its first token to its last"),
    ("latency", "from sending a request to the last token of its last branch"),
    ("goodput", "tokens of the requests that kept their target, per second"),
    ("governed step", "a step with branches that could be parked"),
    ("step time", "how far the controller's prediction of a step was off"),
    ("decision", "how long the controller took to decide about a step, and whether it was in time"),
    (
        "held up",
        "share of its time for which the emulated device waited for this machine's CPU, in the "
        "worst turn that counts. A turn above "
        f"{MOST_HELD_UP:.0%} is void: it does not count and is played again",
    ),
)


def render(summaries: Sequence[Summary]) -> Table:
    """Policies side by side."""
    table = Table()
    table.add_column("")
    for summary in summaries:
        name = NAMES.get(summary.policy)
        heading = f"{name}\n({summary.policy})" if name else summary.policy
        table.add_column(heading, justify="right")
    for label, show in ROWS:
        table.add_row(label, *(show(summary) for summary in summaries))
    return table


def terms() -> Table:
    """What the table's words mean."""
    grid = Table.grid(padding=(0, 2))
    for term, meaning in TERMS:
        grid.add_row(term, meaning)
    return grid
