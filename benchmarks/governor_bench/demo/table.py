"""The demo's one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from governor_bench.demo.measure import Summary

ROWS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    (
        "goodput, tok/s (min-max)",
        lambda s: f"{s.goodput_tok_s:.0f} ({s.goodput_range[0]:.0f}-{s.goodput_range[1]:.0f})",
    ),
    ("requests within their target", lambda s: f"{s.attainment:.0%}"),
    ("chats within their target", lambda s: f"{s.serial_attainment:.0%}"),
    ("chat TPOT beside branches p50, ms", lambda s: f"{s.victim_tpot_p50_ms:.1f}"),
    ("chat TPOT beside branches p95, ms", lambda s: f"{s.victim_tpot_p95_ms:.1f}"),
    ("branching request, latency p50, s", lambda s: f"{s.branching_latency_p50_s:.2f}"),
    ("branching request, tokens/s", lambda s: f"{s.branch_tokens_per_s:.0f}"),
    ("rows advanced per governed step", lambda s: f"{s.mean_width:.1f}"),
    ("row-steps parked", lambda s: f"{s.parked_row_steps}"),
    (
        "step time, median error",
        lambda s: "-" if s.step_error_pct is None else f"{s.step_error_pct:.1f} %",
    ),
    (
        "decision latency, controller, p50 / p99, us",
        lambda s: f"{s.decision_p50_us:.0f} / {s.decision_p99_us:.0f}",
    ),
    ("governed steps with a fresh decision", lambda s: f"{s.applied_share:.1%}"),
    (
        "falls by reason",
        lambda s: ", ".join(f"{name} {count}" for name, count in s.falls.items()) or "none",
    ),
)


def render(summaries: Sequence[Summary], title: str) -> Table:
    """Policies side by side."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for summary in summaries:
        table.add_column(summary.policy, justify="right")
    for label, show in ROWS:
        table.add_row(label, *(show(summary) for summary in summaries))
    return table
