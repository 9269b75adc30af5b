"""Writes the README's figures from the result files in ``benchmarks/results``.

Run ``python -m governor_bench.readme`` after renewing a file with the command that stands beside
its figure, so that no figure is ever typed by hand.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from governor_bench.demo.measure import Summary
from governor_bench.demo.run import conclude, show
from governor_bench.eval.laps_sd.shapes import HINT_SPREAD

RESULTS = Path("benchmarks/results")
WIDTH = 100
SHOWN_LOAD = 112
"""Users of the one place of the curve that the README shows."""


def main() -> None:
    """Replace the marked blocks of ``README.md``."""
    readme = Path("README.md")
    text = readme.read_text()
    text = replaced(text, "demo", demo_block(_result("demo")))
    figures = figures_block(
        _result("decision"),
        _result("overhead"),
        _result("equality"),
        _result("taper"),
        _result("validation"),
        _result("predictors-S"),
        _result("learning"),
        _result("speculation-S"),
        _result("chunk-S"),
        _result("laps_sd-S"),
    )
    readme.write_text(replaced(text, "figures", figures))


def replaced(text: str, name: str, block: str) -> str:
    """``text`` with the block between the markers of ``name`` replaced.

    Raises:
        ValueError: the markers are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    start, stop = text.index(begin) + len(begin), text.index(end)
    return f"{text[:start]}\n{block.strip()}\n{text[stop:]}"


def demo_block(report: dict[str, Any]) -> str:
    """The demo's last lines as they appear in a terminal."""
    summaries = msgspec.convert(report["policies"], list[Summary])
    out = io.StringIO()
    console = Console(file=out, width=WIDTH)
    show(console, summaries, report)
    conclude(console, report)
    return (
        f"What `make demo` prints, on {_machine(report)} ({report['seconds']:.0f} s):\n\n"
        f"```\n{_stripped(out.getvalue())}\n```"
    )


def figures_block(
    decision: dict[str, Any],
    overhead: dict[str, Any],
    equality: dict[str, Any],
    taper: dict[str, Any],
    validation: dict[str, Any],
    predictors: dict[str, Any],
    learning: dict[str, Any],
    speculation: dict[str, Any],
    chunk: dict[str, Any],
    laps_sd: dict[str, Any],
) -> str:
    """One row a promise."""
    cell = next(cell for cell in decision["cells"] if cell["rows"] == 256)
    middle = next(place for place in taper["curve"] if place["load"] == SHOWN_LOAD)
    rows = [
        (
            "decision over the real wire, 256 rows",
            f"p50 {cell['p50_us']:.0f} us, p99 {cell['p99_us']:.0f} us; "
            f"{cell['ratio_p50']:.2f} times a bare echo of the same bytes",
            "governor bench decision",
        ),
        (
            "throughput, governed without parking / stock",
            f"{overhead['throughput_ratio']:.3f} (median of {len(overhead['rounds'])} rounds, "
            f"{overhead['ratio_min']:.2f} to {overhead['ratio_max']:.2f})",
            "governor bench overhead",
        ),
        (
            "the same with the controller down; p99 time between tokens",
            f"{overhead['controller_down']['throughput_ratio']:.3f}; "
            f"{overhead['controller_down']['step_p99_ratio']:.3f}",
            "governor bench overhead",
        ),
        (
            "governed greedy tokens against stock",
            f"{equality['mismatched']} of {equality['requests']} requests differ, "
            f"{equality['parked_row_steps']} row-steps parked",
            "governor check equality",
        ),
        (
            f"goodput, `{taper['policy']}` over the better of stock and one row a request "
            "(simulated Qwen3-32B)",
            f"at least {taper['worst_vs_better_of_off_and_eager']:.2f} at every load; at "
            f"{middle['load']:g} users {_over(middle, 'eager'):.2f} times stock and "
            f"{_over(middle, 'off'):.2f} times one row a request, attainment "
            f"{middle['policies']['taper_plus']['attainment']:.0%}",
            "governor eval taper",
        ),
        (
            "the simulator against real SGLang with emulated step times",
            f"median error of TPOT {validation['median_tpot_error_pct']:.1f} %, of goodput "
            f"{validation['median_goodput_error_pct']:.1f} %, {validation['settings']} settings",
            "governor eval validate",
        ),
        (
            "step time on batch shapes that no model had seen, 1 % noise (simulated)",
            f"off by {predictors['step_mape']:.2%} at worst, a line by "
            f"{predictors['linear_step_mape']:.2%}; cost of added rows "
            f"{predictors['externality_times_better']:.1f} times closer than a line's where it is "
            f"not linear; {predictors['recovery_steps']} steps to recover from a predictor that is "
            "wrong by half or twofold",
            "governor eval predictors",
        ),
        (
            "tokens per second under speculation, `turbospec` against fixed draft lengths over "
            "load x acceptance (simulated Qwen3-32B)",
            f"at least {speculation['worst_cell_vs_best_fixed']:.2f} times the best length of each "
            f"cell; {speculation['vs_best_single_fixed']:.2f} times the best single length, "
            f"{speculation['vs_sglang_adaptive']:.2f} times SGLang's own adaptive, "
            f"{speculation['vs_batch_table']:.2f} times a tuned table by batch size",
            "governor eval speculation",
        ),
        (
            "TPOT with TTFT as promised, `adaptive_chunk` against fixed prefill budgets over "
            "shapes x load, prefill first and mixed chunks (simulated Qwen3-32B)",
            f"{chunk['tpot_vs_best_fixed_meeting_ttft_mean']:.3f} times the best fixed budget that "
            f"keeps the promise, at most {chunk['tpot_vs_best_fixed_meeting_ttft']:.3f} times in "
            f"each of {chunk['cells_where_a_fixed_meets']} cells where one does, attainment there "
            f"at least {chunk['ttft_attainment']:.1%}; beside bursts of long prompts short ones "
            f"have their first token {chunk['vs_default_ttft_p99']:.0f} times sooner (p99) than "
            f"under SGLang's default, at {chunk['burst_throughput_vs_default']:.2f} times its "
            "throughput",
            "governor eval chunk",
        ),
        (
            "mean latency, `laps_sd` against other orders of service over shapes x load, bursts, "
            "few places (simulated Qwen3-32B with speculation)",
            f"on average {_order(laps_sd)}. Where requests declare how much they expect, off by "
            f"exp(N(0, {HINT_SPREAD:g})): {_order(laps_sd['hinted'])}",
            "governor eval laps-sd",
        ),
        (
            "log, fit, promote and roll back while users are served",
            f"{learning['logged_samples']} steps logged; {len(learning['refused'])} damaged models "
            f"refused; a bad one taken out after {learning['rolled_back_after_s']:.0f} s; "
            f"{learning['failed_requests']} of {learning['requests']} requests failed",
            "governor check learning",
        ),
    ]
    lines = [f"| {what} | {figure} | `{command}` |" for what, figure, command in rows]
    head = "| figure | measured | command |\n|---|---|---|\n"
    note = (
        f"\n\nOn {_machine(decision)}, a shared one: ratios hold, times vary. The engine is stock "
        "SGLang on the reference CPU platform. No GPU figures yet."
    )
    return head + "\n".join(lines) + note


def _over(place: dict[str, Any], name: str) -> float:
    policies = place["policies"]
    return float(policies["taper_plus"]["goodput_tok_s"] / policies[name]["goodput_tok_s"])


def _order(grid: dict[str, Any]) -> str:
    average = grid["on_average"]
    return (
        f"{average['mean_latency_vs_fcfs']:.2f} times first come, first served, at most "
        f"{grid['mean_latency_vs_fcfs']:.2f} times; {average['mean_latency_vs_las']:.2f} times "
        f"least attained service, {average['mean_latency_vs_sjf']:.2f} times shortest predicted "
        f"job; {average['gap_to_srpt']:.0%} above an oracle; p99 "
        f"{average['p99_vs_fcfs']:.2f} times first come, first served's, at most "
        f"{grid['p99_vs_fcfs']:.2f} times"
    )


def _result(name: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode((RESULTS / f"{name}.json").read_bytes())
    return decoded


def _machine(report: dict[str, Any]) -> str:
    return f"{report['machine']['cpus']} {report['machine']['machine']} cores"


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


if __name__ == "__main__":
    main()
