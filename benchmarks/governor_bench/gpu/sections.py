"""The document's sections, one for each stage."""

from __future__ import annotations

from governor_bench.eval.tables import percent, table
from governor_bench.gpu import figures as found

CELLS_SHOWN = 24


def section(figures: found.Figures) -> str:  # noqa: PLR0911 - one for each kind
    """Markdown of one stage's figures."""
    match figures:
        case found.Environment():
            return _environment(figures)
        case found.StockHalves():
            return f"Saved in {', '.join(f'`{name}`' for name in figures.files)}."
        case found.BringUp():
            return _bring_up(figures)
        case found.Equality():
            return _equality(figures)
        case found.Calibration():
            return _calibration(figures)
        case found.Overhead():
            return _overhead(figures)
        case found.Lateness():
            return _lateness(figures)
        case found.Parking():
            return _parking(figures)
        case found.Taper():
            return _taper(figures)
        case found.Drafts():
            return _drafts(figures)
        case found.Trace():
            return _trace(figures)
        case found.Emulation():
            return _emulation(figures)


def _environment(one: found.Environment) -> str:
    gpu = (
        f"{one.gpu}, {one.memory_mib} MiB, capability {one.compute_capability}, driver {one.driver}"
        if one.gpu
        else "No GPU."
    )
    versions = ", ".join(f"{name} {text}" for name, text in sorted(one.versions.items()))
    failed = [f"`{name}` ({text})" for name, text in one.imports.items() if text != "ok"]
    return f"{gpu}\n\n{versions}\n\nNot importable: {'; '.join(failed) or 'nothing'}."


def _bring_up(one: found.BringUp) -> str:
    rows = ", ".join(map(str, one.graph_rows))
    graphs = f"graphs of {rows} rows" if rows else "no graphs"
    return (
        f"Ready after {one.ready_s:.0f} s as `{one.device}`; {one.kv_tokens} tokens of KV, at most "
        f"{one.max_running_requests} requests; {graphs}; knobs "
        f"{', '.join(one.knobs) or 'none'}. A request of two branches gave {one.tokens} tokens, "
        f"the first after {1e3 * one.first_token_s:.0f} ms."
    )


def _equality(one: found.Equality) -> str:
    first = f" The first: {one.first_difference}." if one.first_difference else ""
    return (
        f"Under `{one.policy}`, {one.parked_row_steps} row-steps parked: {one.governed_differ} of "
        f"{one.requests} requests differ from stock. Stock differs from itself in "
        f"{one.stock_differ} of {one.requests // 2}.{first}"
    )


def _calibration(one: found.Calibration) -> str:
    error = "unknown" if one.error_pct is None else f"{one.error_pct:.1f} %"
    shown = one.cells[:: max(1, -(-len(one.cells) // CELLS_SHOWN))]
    rows = [
        (str(cell.rows), f"{cell.context_tokens:.0f}", f"{cell.step_ms:.2f}", str(cell.steps))
        for cell in shown
    ]
    return (
        f"{one.points} points, {len(one.cells)} cells; error on cells left out {error}. As a line: "
        f"{one.fixed_ms:.2f} ms, {one.row_us:.1f} us a row, {one.context_token_ns:.1f} ns a token "
        f"of context, {one.prefill_token_us:.1f} us a token of prefill. {one.kv_tokens} tokens of "
        f"KV. Profile `{one.profile}`.\n\n"
        + table(("rows", "context, tokens", "step, ms", "steps"), rows)
    )


def _overhead(one: found.Overhead) -> str:
    how = (
        "both engines beside each other, in turns"
        if one.beside
        else "stock first, then governed, as two do not fit beside each other: drift of the "
        "machine is in the ratio"
    )
    return (
        f"Governed without parking over stock, {how}: throughput {one.throughput_ratio:.3f} "
        f"(median of {len(one.rounds)} rounds, {one.ratio_min:.3f} to {one.ratio_max:.3f}).\n\n"
        + table(
            ("token interval", "p50, ms", "p99, ms", "intervals"),
            [
                (name, f"{q.p50_ms:.2f}", f"{q.p99_ms:.2f}", str(q.count))
                for name, q in (("stock", one.stock), ("governed", one.governed))
            ],
        )
    )


def _lateness(one: found.Lateness) -> str:
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(one.outcomes.items()) if count)
    falls = ", ".join(f"{name} {count}" for name, count in sorted(one.falls.items())) or "none"
    return (
        f"`{one.policy}`, {one.users:g} users, {one.seconds:.0f} s: {one.late_per_10k:.1f} of "
        f"10,000 governed steps without a decision of their own ({one.governed_steps} steps: "
        f"{outcomes}). Falls: {falls}."
    )


def _parking(one: found.Parking) -> str:
    rows = [
        (
            str(cell.advancing),
            str(cell.parked),
            f"{cell.plain_us:.0f}",
            f"{cell.parked_us:.0f}",
            f"{cell.cost_us:.0f}",
            f"{cell.spread_us:.0f}",
            str(cell.steps),
        )
        for cell in one.cells
    ]
    head = ("advance", "parked", "none parked, us", "parked, us", "cost, us", "quartiles apart, us")
    return "Medians of steps.\n\n" + table((*head, "steps"), rows)


def _taper(one: found.Taper) -> str:
    rows = [
        (
            f"{cell.users:g}",
            f"`{cell.policy}`",
            f"{cell.goodput_tok_s:.0f}",
            f"{cell.throughput_tok_s:.0f}",
            percent(cell.attainment),
            f"{cell.tpot_p50_ms:.1f}",
            f"{cell.victim_tpot_p95_ms:.1f}",
            f"{cell.rows:.1f}",
            f"{cell.parked:.1f}",
            f"{cell.step_ms:.2f}",
            percent(cell.late_share, 2),
            str(cell.requests),
            str(cell.failed),
        )
        for cell in one.cells
    ]
    head = (
        *("users", "policy", "goodput, tok/s", "throughput, tok/s", "attained", "TPOT p50, ms"),
        *("victims' p95, ms", "rows", "parked", "step, ms", "late", "judged", "failed"),
    )
    return (
        f"TPOT target {one.slo_ms:g} ms; runs of {one.run_s:g} s, judged from {one.warm_up_s:g} s; "
        f"seed {one.seed}, once each.\n\n{table(head, rows)}\n\nWorkload, at the low load: "
        f"{one.workload}."
    )


def _drafts(one: found.Drafts) -> str:
    rows = [
        (str(cell.rows), str(cell.length), f"{cell.step_ms:.2f}", str(cell.steps))
        for cell in one.cells
    ]
    costs = "not known: too little was measured"
    if one.draft_token_us is not None:
        error = "unknown" if one.cost_error is None else percent(one.cost_error, 1)
        costs = (
            f"{one.draft_token_us:.1f} us a token, {one.draft_step_us:.1f} us a draft step, "
            f"{one.draft_row_us:.1f} us a row and draft step; error on sizes left out {error}"
        )
    return (
        f"`{one.algorithm}`, lengths {', '.join(map(str, one.lengths))}; acceptance simulated at "
        f"{one.simulated_accept_tokens:g} tokens a step, {one.seen_accept_tokens:.2f} seen. "
        f"{one.switches} switches: the first step after one takes {one.switch_us:.0f} us more than "
        f"the next ones (median; p95 {one.switch_p95_us:.0f} us), {one.told_switch_us:.0f} us "
        f"of host time by the engine's own account. Costs of drafting: {costs}.\n\n"
        + table(("rows", "length", "step, ms", "steps"), rows)
    )


def _trace(one: found.Trace) -> str:
    parts = sorted({part for side in one.sides for part in side.host_us})
    rows = [(part, *(f"{side.host_us.get(part, 0.0):.0f}" for side in one.sides)) for part in parts]
    rows.append(("governor, all", *(f"{side.governor_us:.0f}" for side in one.sides)))
    names = [f"{side.name}, `{side.policy}` ({side.steps} steps)" for side in one.sides]
    calls = sorted({call for side in one.sides for call in side.waits})
    waits = [
        (f"`{call}`", *(f"{side.waits.get(call, 0.0):.2f}" for side in one.sides)) for call in calls
    ]
    waits.append(("all", *(f"{side.waits_per_step:.2f}" for side in one.sides)))
    return (
        "Host time a step, us, under torch's profiler, which slows every Python call; read the "
        f"columns against each other.\n\n{table(('part', *names), rows)}\n\nCalls a step that make "
        f"the host wait for the device; governed without parking has "
        f"{one.more_waits_per_step:+.2f} more than stock.\n\n{table(('call', *names), waits)}"
    )


def _emulation(one: found.Emulation) -> str:
    goodput = one.median_goodput_error_pct
    rows = [
        (
            cell.tier,
            f"{cell.users:g}",
            f"`{cell.policy}`",
            f"{cell.tpot_ratio:.3f}",
            "-" if cell.goodput_ratio is None else f"{cell.goodput_ratio:.3f}",
            percent(cell.host_limited_share, 1) if cell.tier == "E" else "-",
        )
        for cell in one.cells
    ]
    return (
        f"Model over device, with the profile measured there; E at {one.scale:g} times the time. "
        f"Median error of TPOT {one.median_tpot_error_pct:.1f} %, of goodput "
        f"{'unknown' if goodput is None else f'{goodput:.1f} %'}.\n\n"
        + table(("tier", "users", "policy", "TPOT", "goodput", "waited for the host"), rows)
    )
