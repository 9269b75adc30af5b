"""The sections of the result document that show more than the curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from governor_bench.eval.tables import percent, table
from governor_bench.eval.taper.plan import ABLATIONS, FEW, MIS_SET, PLUS, SWITCHES, TAPER
from governor_bench.eval.taper.tables import goodput


def validation_section(validation: dict[str, Any]) -> str:
    """The simulator against the emulated engine."""
    body = [
        (
            f"{cell['load']:g}",
            cell["policy"],
            f"{cell['simulated']['goodput_tok_s']:.0f} / {cell['emulated']['goodput_tok_s']:.0f}",
            f"{cell['goodput_error_pct']:.1f} %",
            f"{cell['simulated']['tpot_mean_ms']:.2f} / {cell['emulated']['tpot_mean_ms']:.2f}",
            f"{cell['tpot_error_pct']:.1f} %",
            f"{cell['serial_tpot_error_pct']:.1f} %",
            f"{100 * cell['simulated']['attainment']:.0f} / "
            f"{100 * cell['emulated']['attainment']:.0f} %",
            f"{100 * cell['emulated']['host']['host_limited_share']:.2f} %",
            f"{100 * cell['emulated']['late_share']:.2f} %",
        )
        for cell in validation["cells"]
    ]
    head = (
        "users", "policy", "goodput S / E", "error", "mean TPOT S / E, ms", "error",
        "error, serial TPOT", "attainment S / E", "E: device held up by the host",
        "E: steps without a fresh decision",
    )  # fmt: skip
    return (
        "## The simulator against real SGLang\n\nThe same settings on tier S and on tier E: real "
        "SGLang, HTTP, controller and decisions, with emulated step times, at time scale "
        f"{validation['arguments']['scale']:g}. Median error of TPOT "
        f"{validation['median_tpot_error_pct']:.1f} % (worst "
        f"{validation['worst_tpot_error_pct']:.1f} %), of goodput "
        f"{validation['median_goodput_error_pct']:.1f} % (worst "
        f"{validation['worst_goodput_error_pct']:.1f} %).\n\n" + table(head, body)
    )


def emulated_section(report: dict[str, Any]) -> str:
    """The curve's main policies on tier E."""
    rows = report["curve"]
    names = list(rows[0]["policies"])
    body = [
        (f"{row['load']:g}", *(goodput(row["policies"][name]) for name in names)) for row in rows
    ]
    attained = [
        (f"{row['load']:g}", *(percent(row["policies"][name]["attainment"]) for name in names))
        for row in rows
    ]
    return (
        f"## On the emulated engine (tier E)\n\nSeeds {report['seeds']}; predictor `linear` for "
        "all. Goodput, tok/s:\n\n"
        + table(("users", *names), body)
        + "\n\nAttainment:\n\n"
        + table(("users", *names), attained)
    )


def alone_section(report: dict[str, Any]) -> str:
    """Ablations and improvements, one at a time."""
    sections = report["sections"]
    published = {row["load"]: row["policies"][TAPER.name] for row in report["curve"]}
    improved = {row["load"]: row["policies"][PLUS.name] for row in report["curve"]}
    loads = sorted({cell["load"] for cell in sections["switches"]})
    alone = [*sections["ablations"], *sections["switches"]]

    def figures(name: str) -> tuple[str, ...]:
        found = {cell["load"]: cell for cell in alone if cell["name"] == name}
        return tuple(_against(found[load], published[load]) for load in loads)

    body = [(TAPER.name, *(_against(published[load], published[load]) for load in loads))]
    body += [(item.name, *figures(item.name)) for item in (*ABLATIONS, *SWITCHES)]
    body.append((PLUS.name, *(_against(improved[load], published[load]) for load in loads)))
    return (
        "## Ablations, and each improvement alone\n\nGoodput relative to published TAPER, and "
        "attainment.\n\n"
        + table(("", *(f"{load:g} users" for load in loads)), body)
        + "\n\nWithout a slack budget every row has a positive utility, so that ablation is `eager` by "
        "construction. The constant predictor takes every row for the same share of a step."
    )


def sensitivity_section(report: dict[str, Any]) -> str:
    """Targets, engines, wrong predictors, shifting loads."""
    sections = report["sections"]
    few = [contender.name for contender in FEW]
    slo = _by(sections["slo"], few, lambda cell: f"{cell['slo_ms']:g} ms")
    rows = _by(
        sections["cost_rows"],
        few,
        lambda cell: f"{cell['profile']}, {cell['slo_ms']:g} ms, {cell['load']:g} users",
    )
    tight = _by(
        sections["tight"],
        few,
        lambda cell: f"{cell['profile']}, {cell['slo_ms']:g} ms, {cell['load']:g} users",
    )
    wrong = _by(
        sections["wrong_predictor"],
        [contender.name for contender in MIS_SET],
        lambda cell: f"{100 * (cell['predictor_factor'] - 1):+.0f} %",
    )
    targets = _by(sections["targets"], few, lambda cell: f"{cell['load']:g} users")
    shift = _by(sections["shift"], few, lambda cell: f"{cell['load']:g} requests/s")
    load = sections["slo"][0]["load"]
    return "\n\n".join(
        [
            "## Sensitivity\n\nGoodput in tok/s and attainment.",
            f"The target, at {load:g} users:",
            table(("target", *few), slo),
            "Both 8xH200 cost rows:",
            table(("engine, target, load", *few), rows),
            "Targets of less than twice a step's fixed cost:",
            table(("engine, target, load", *few), tight),
            "A predictor that is wrong and, uncorrected, stays so:",
            table(("error", *(contender.name for contender in MIS_SET)), wrong),
            "Targets that differ between requests (a quarter each at half and twice the nominal "
            "50 ms, the rest at it):",
            table(("load", *few), targets),
            "A load that shifts every 40 s between 1.7 and 0.3 times its rate (open loop):",
            table(("load", *few), shift),
        ]
    )


def _by(cells: Sequence[dict[str, Any]], names: Sequence[str], label: Any) -> list[tuple[str, ...]]:
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        rows.setdefault(label(cell), {})[cell["name"]] = cell
    return [
        (
            name,
            *(f"{goodput(found[each])}, {percent(found[each]['attainment'])}" for each in names),
        )
        for name, found in rows.items()
    ]


def _against(cell: dict[str, Any], base: dict[str, Any]) -> str:
    ratio = cell["goodput_tok_s"] / base["goodput_tok_s"]
    return f"{ratio:.2f} x, {percent(cell['attainment'])}"
