"""``governor fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller_service.commands.cluster import cluster_errors, cluster_option
from controller_service.commands.outputs import require_writable, unwritable
from controller_service.program import governor

if TYPE_CHECKING:
    from controller_service.learning.ends import EndColumns
    from controller_service.learning.fit import FamilyScore, FitResult
    from controller_service.learning.gather import Gathered

AUTO = "auto"
FAMILIES = ("linear", "boosted", "extra_trees", "measured")
"""As :func:`controller_service.learning.families.family_names`, without importing them."""


@click.command()
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the model."
)
@click.option(
    "--family",
    type=click.Choice((AUTO, *FAMILIES)),
    default=AUTO,
    show_default=True,
    help="auto compares all of them on held-out steps.",
)
@click.option("--engine", help="Name of the engine, where logs hold several.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option(
    "--json",
    "as_json",
    metavar="PATH",
    help="Write the manifest and all errors; - is standard output.",
)
@cluster_option
def fit(
    logs: tuple[str, ...],
    output: Path,
    family: str,
    engine: str | None,
    seed: int,
    as_json: str | None,
    cluster: str | None,
) -> None:
    """Fit a model of step latency to decision logs, and write it to a folder.

    LOG is a folder, file or URL of decision logs, or a file of samples from governor profile.
    """
    import msgspec  # noqa: PLC0415 - what follows takes seconds to load; a wrong flag should not
    from rich.console import Console  # noqa: PLC0415

    from controller_service.learning import artifact  # noqa: PLC0415
    from controller_service.learning.fit import fit as fit_to  # noqa: PLC0415

    require_writable("-o", output, makes_parents=True)
    if as_json and as_json != "-":
        require_writable("--json", Path(as_json), makes_parents=False)
    console = Console(stderr=True)
    try:
        with cluster_errors():
            gathered = _gather(console, logs, engine, seed, cluster)
        with console.status("fitting") as status:
            result = fit_to(
                gathered.buckets,
                gathered.engine,
                () if family == AUTO else (family,),
                gathered.graph_rows,
                seed,
                ends=_ends(logs, engine),
                sources=gathered.sources,
                on_progress=status.update,
            )
            artifact.save_model(output, result.model, result.manifest, result.extras)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    _print(console, result, output)
    if as_json:
        report = {"manifest": result.manifest, "families": result.scores}
        text = msgspec.json.format(msgspec.json.encode(report), indent=1).decode()
        _write(as_json, text)


def _gather(
    console: Any, logs: tuple[str, ...], engine: str | None, seed: int, cluster: str | None
) -> Gathered:
    """Read everything with a progress bar; the one kind of engine that is wanted."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    from controller_service.learning.gather import Found, gather, list_sources  # noqa: PLC0415

    paths = list_sources(logs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("reading logs", total=len(paths))

        def read(found: Found) -> None:
            progress.advance(bar)
            if found.damage:
                console.print(f"skipped {found.path}: {found.damage}", markup=False)

        kinds = gather(paths, engine, seed, cluster=cluster, on_file=read)
    if not kinds:
        whose = f" of engine {engine!r}" if engine else ""
        raise click.ClickException(f"no steps{whose} in {', '.join(logs)}")
    if len(kinds) > 1:
        told = "; ".join(f"{', '.join(one.engine_ids)} ({_told(one.engine)})" for one in kinds)
        raise click.ClickException(
            f"these logs hold steps of {len(kinds)} kinds of engine, and no model fits two: "
            f"choose with --engine NAME, of {told}"
        )
    return kinds[0]


def _ends(logs: tuple[str, ...], engine: str | None) -> EndColumns | None:
    """Ended requests, if the logs have any."""
    from controller_service.logbook.reading import BadSource, read_ends  # noqa: PLC0415

    folders = [log for log in logs if not log.endswith((".npz", ".parquet"))]
    if not folders:
        return None
    try:
        ends = read_ends(folders, engine)
    except BadSource:
        return None  # steps were found there: there is no table of requests, which is no error
    return ends if len(ends) else None


def _print(console: Any, result: FitResult, output: Path) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(title="Errors on held-out steps")
    table.add_column("family")
    for name in ("step", "step, unseen regimes", "90th percentile covers", "row's cost, measured"):
        table.add_column(name, justify="right")
    for score in result.scores:
        table.add_row(*_row(score, score.family == result.manifest.family))
    console.print(table)
    data = result.manifest.data
    console.print(
        f"{result.manifest.family} fitted to {data.samples} samples of {data.offered} steps in "
        f"{data.regimes} regimes; model {result.manifest.model_id} in {output}",
        highlight=False,
    )
    for name, fitted in (("lengths", result.lengths), ("acceptance", result.acceptance)):
        if fitted is not None:
            console.print(f"{name} fitted to {data.ends} ended requests", highlight=False)
    console.print(f"next: {governor()} model promote {output}", highlight=False)


def _row(score: FamilyScore, chosen: bool) -> list[str]:
    name = f"[bold]{score.family}[/bold] *" if chosen else score.family
    if score.holdout is None:
        return [name, score.failed or "too little to hold out", "-", "-", "-"]
    held = score.holdout
    shares = (held.step_mape, held.unseen_mape, held.step_p90_coverage, held.externality_error)
    return [name, *("-" if share is None else f"{share:.2%}" for share in shares)]


def _told(engine: Any) -> str:
    return f"{engine.model}, {engine.device}, tp {engine.tp_size}, SGLang {engine.sglang_version}"


def _write(target: str, text: str) -> None:
    if target == "-":
        click.echo(text)
        return
    try:
        Path(target).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable("--json", Path(target), error) from error
