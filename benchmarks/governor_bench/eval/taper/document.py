"""Writes ``docs/results/taper.md`` from the result files, so that no figure is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from governor_bench.eval.taper.figures import AIM_VS_EAGER, AIM_VS_OFF
from governor_bench.eval.taper.plan import ABLATIONS, FEW, MIS_SET, PLUS, SWITCHES, TAPER
from governor_bench.eval.taper.plots import plot_all

SIMULATED = "taper.json"
VALIDATION = "validation.json"
EMULATED = "taper_emulated.json"


PLOTS = ("curve", "sensitivity", "switches", "width")


def write(results: Path, target: Path) -> None:
    """Write the document to ``target`` and its plots beside it.

    Raises:
        FileNotFoundError: a result file is missing; names it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(compose(results))
    plot_all(_read(results / SIMULATED), target.parent / "plots" / "taper")


def compose(results: Path) -> str:
    """The document's text.

    Raises:
        FileNotFoundError: a result file is missing; names it.
    """
    report = _read(results / SIMULATED)
    validation = _read(results / VALIDATION)
    emulated = _read(results / EMULATED) if (results / EMULATED).exists() else None
    parts = [
        _head(report),
        _headline(report),
        _curve(report),
        _validation(validation),
        *([_emulated(emulated)] if emulated else []),
        _alone(report),
        _sensitivity(report),
        "## Plots\n\n" + "\n\n".join(f"![{name}](plots/taper/{name}.png)" for name in PLOTS),
        _workloads(report),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: dict[str, Any]) -> str:
    errors = report["validation"]
    beside = (
        "not validated"
        if errors is None
        else f"against real SGLang with emulated step times, {errors['settings']} settings: median "
        f"error of TPOT {errors['median_tpot_error_pct']:.1f} %, of goodput "
        f"{errors['median_goodput_error_pct']:.1f} %"
    )
    return (
        "# Branch admission: TAPER and what goes past it\n\n"
        "Written by `governor eval document` from `benchmarks/results/taper.json` (`governor eval "
        "taper --tier S --validation benchmarks/results/validation.json --json ...`), "
        "`validation.json` (`governor eval validate --json ...`) and `taper_emulated.json` "
        "(`governor eval taper --tier E --json ...`).\n\n"
        f"Tier S: the simulator ({beside}). Seeds {report['seeds']}; medians, and the range over "
        f"seeds in brackets; {report['arguments']['runs']} runs in {report['seconds'] / 60:.0f} "
        f"minutes on {report['machine']['cpus']} cores. No figure here was measured on a GPU: step "
        "times are those of a named profile."
    )


def _headline(report: dict[str, Any]) -> str:
    published = report["published"]
    better = report["worst_vs_better_of_off_and_eager"]
    rows = [
        (
            "goodput over off / over eager, attainment",
            f"{AIM_VS_OFF:.2f} x / {AIM_VS_EAGER:.2f} x, 95 %",
            _pair(report),
            _pair(published),
        ),
        ("worst goodput over the better of off and eager", "0.98 x", f"{better:.3f} x", ""),
        (
            "share of the gap to the clairvoyant bound that is closed, worst of the middle",
            "50 %",
            _percent(report["gap_closed"]),
            "",
        ),
        (
            "goodput over published TAPER where targets differ / where the load shifts, worst (the bound there)",
            "1.10 x",
            " / ".join(
                f"{ratio:.2f} x ({report['bound_vs_published_by_case'][case]:.2f} x)"
                for case, ratio in report["improved_vs_published_by_case"].items()
            ),
            "",
        ),
    ]
    return (
        "## At a glance\n\n"
        + _table(("figure", "aim", PLUS.name, f"{TAPER.name} (published)"), rows)
        + (
            "\n\nThe first row is the load where a policy comes closest to both ratios at once. They pull "
            "against each other: a closed loop keeps `off` below only while few users are there, and "
            "`eager` misses targets only once many are. Without variance and prefill, with a share q of the tokens "
            "in serial requests, a target S and a fixed step cost a, no admission policy can have more than "
            "(1/q)(a/S) + 1 - a/S over `off` at the load where `eager` starts to fail, nor more than "
            "1/(1-q) over `eager` there."
        )
    )


def _curve(report: dict[str, Any]) -> str:
    rows = report["curve"]
    names = list(rows[0]["policies"])
    head = ("users", *names, "best fixed width")
    body = [
        (
            f"{row['load']:g}",
            *(_goodput(row["policies"][name]) for name in names),
            f"{row['best_fixed_width']['goodput_tok_s']:.0f} ({row['best_fixed_width']['name']})",
        )
        for row in rows
    ]
    attained = [
        (f"{row['load']:g}", *(_percent(row["policies"][name]["attainment"]) for name in names), "")
        for row in rows
    ]
    victims = [
        (
            f"{row['load']:g}",
            *(f"{row['policies'][name]['victim_tpot_p95_ms']:.1f}" for name in names),
            "",
        )
        for row in rows
    ]
    first = next(iter(rows[0]["policies"].values()))
    return (
        f"## Over the load\n\n{first['profile']}, TPOT target {first['slo_ms']:g} ms.\n\n"
        "Goodput, tok/s:\n\n"
        + _table(head, body)
        + "\n\nAttainment:\n\n"
        + _table(head, attained)
        + "\n\nTPOT of serial requests that share steps with branches, p95, ms:\n\n"
        + _table(head, victims)
        + "\n\n"
        + _where_it_does_not_pay(rows)
    )


def _where_it_does_not_pay(rows: Sequence[dict[str, Any]]) -> str:
    def ratio(row: dict[str, Any], name: str) -> float:
        return float(
            row["policies"][name]["goodput_tok_s"] / row["best_fixed_width"]["goodput_tok_s"]
        )

    lines = []
    for name in (TAPER.name, PLUS.name):
        below = [
            f"{row['load']:g} ({ratio(row, name):.2f} x)" for row in rows if ratio(row, name) < 1
        ]
        lines.append(
            f"`{name}` is below the best fixed width at: {', '.join(below) if below else 'no load'}."
        )
    return "Where governing does not pay: " + " ".join(lines)


def _validation(validation: dict[str, Any]) -> str:
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
        f"{validation['worst_goodput_error_pct']:.1f} %).\n\n" + _table(head, body)
    )


def _emulated(report: dict[str, Any]) -> str:
    rows = report["curve"]
    names = list(rows[0]["policies"])
    body = [
        (f"{row['load']:g}", *(_goodput(row["policies"][name]) for name in names)) for row in rows
    ]
    attained = [
        (f"{row['load']:g}", *(_percent(row["policies"][name]["attainment"]) for name in names))
        for row in rows
    ]
    return (
        f"## On the emulated engine (tier E)\n\nSeeds {report['seeds']}; predictor `linear` for "
        "all. Goodput, tok/s:\n\n"
        + _table(("users", *names), body)
        + "\n\nAttainment:\n\n"
        + _table(("users", *names), attained)
    )


def _alone(report: dict[str, Any]) -> str:
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
        + _table(("", *(f"{load:g} users" for load in loads)), body)
        + "\n\nWithout a slack budget every row has a positive utility, so that ablation is `eager` by "
        "construction. The constant predictor takes every row for the same share of a step."
    )


def _sensitivity(report: dict[str, Any]) -> str:
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
            _table(("target", *few), slo),
            "Both 8xH200 cost rows:",
            _table(("engine, target, load", *few), rows),
            "Targets of less than twice a step's fixed cost:",
            _table(("engine, target, load", *few), tight),
            "A predictor that is wrong and, uncorrected, stays so:",
            _table(("error", *(contender.name for contender in MIS_SET)), wrong),
            "Targets that differ between requests (a quarter each at half and twice the nominal "
            "50 ms, the rest at it):",
            _table(("load", *few), targets),
            "A load that shifts every 40 s between 1.7 and 0.3 times its rate (open loop):",
            _table(("load", *few), shift),
        ]
    )


def _workloads(report: dict[str, Any]) -> str:
    lines = [f"- `{name}`: {text}" for name, text in report["workloads"].items()]
    return (
        "## Workloads\n\nAs at the first load of each; users or rate follow the load.\n\n"
        + "\n".join(lines)
    )


def _by(cells: Sequence[dict[str, Any]], names: Sequence[str], label: Any) -> list[tuple[str, ...]]:
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        rows.setdefault(label(cell), {})[cell["name"]] = cell
    return [
        (
            name,
            *(f"{_goodput(found[each])}, {_percent(found[each]['attainment'])}" for each in names),
        )
        for name, found in rows.items()
    ]


def _against(cell: dict[str, Any], base: dict[str, Any]) -> str:
    ratio = cell["goodput_tok_s"] / base["goodput_tok_s"]
    return f"{ratio:.2f} x, {_percent(cell['attainment'])}"


def _pair(figures: dict[str, Any]) -> str:
    return (
        f"{figures['goodput_vs_off']:.2f} x / {figures['goodput_vs_eager']:.2f} x, "
        f"{_percent(figures['attainment'])} ({figures['profile']}, {figures['slo_ms']:g} ms, "
        f"{figures['load']:g} users)"
    )


def _goodput(cell: dict[str, Any]) -> str:
    low, high = cell["goodput_range"]
    return f"{cell['goodput_tok_s']:.0f} ({low:.0f}-{high:.0f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the command that writes it first")
    decoded: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict)
    return decoded
