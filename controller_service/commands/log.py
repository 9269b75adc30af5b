"""``governor log``: the decision log, shown, summed up and exported."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller_service.commands.outputs import require_writable
from controller_service.commands.tables import console

if TYPE_CHECKING:
    from controller_service.logbook.query import Filter, Log

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE = "GOVERNOR_LOG_DIR"

SHOWN = {
    "steps": (
        *("time", "engine", "step", "kind", "outcome", "policy", "rows", "context_tokens"),
        *("parked_rows", "latency_s", "expected_s", "expected_p90_s"),
    ),
    "requests": (
        *("time", "engine", "request_id", "group_id", "prompt_tokens", "output_tokens"),
        *("max_new_tokens", "reason", "age_s"),
    ),
}

FORMS = ("parquet", "csv", "jsonl")

sources_argument = click.argument("sources", nargs=-1)
table_option = click.option(
    "--table", type=click.Choice(["steps", "requests"]), default="steps", show_default=True
)


def filters(command: F) -> F:
    """The options that say which records."""
    for option in (
        click.option("--where", metavar="SQL", help="A condition on the columns: 'rows > 64'."),
        click.option("--outcome", help="Such as applied, late, ungoverned."),
        click.option("--kind", help="decode, prefill or mixed."),
        click.option("--policy", help="With its settings, or without for any."),
        click.option("--until", metavar="WHEN", help="Before it; as --since."),
        click.option("--since", metavar="WHEN", help="90s, 10m, 3h, 2d ago, or an ISO time, UTC."),
        click.option("--engine", help="Only this engine; 'governor log engines' names them."),
    ):
        command = option(command)
    return command


@click.group()
def log() -> None:
    """The decision log: what was seen, predicted and decided, and what came of it.

    SOURCES are log folders, files in them or fsspec URLs; by default the folder that
    GOVERNOR_LOG_DIR names.
    """


@log.command()
@sources_argument
@table_option
@filters
@click.option("--columns", metavar="A,B,...", help="Which to show; 'all' shows every one.")
@click.option("--last", type=click.IntRange(1, 100_000), default=20, show_default=True)
def show(
    sources: tuple[str, ...], table: str, columns: str | None, last: int, **wanted: str | None
) -> None:
    """Show the newest records, oldest first."""
    from controller_service.commands.log_tables import records_table  # noqa: PLC0415

    with _plainly():
        opened = _open(sources, table, wanted)
        names = _columns(opened, columns, SHOWN[table])
        found = opened.last(names, last)
    _none_of_it(opened, found.num_rows)
    console().print(records_table(found))


@log.command()
@sources_argument
@table_option
def engines(sources: tuple[str, ...], table: str) -> None:
    """List the engines in the log."""
    from controller_service.commands.log_tables import engines_table  # noqa: PLC0415
    from controller_service.logbook.figures import engines_in, spans  # noqa: PLC0415

    with _plainly():
        opened = _open(sources, table, {})
        found, times = engines_in(opened), spans(opened)
    _none_of_it(opened, len(found))
    console().print(engines_table(found, times))


@log.command()
@sources_argument
@filters
def stats(sources: tuple[str, ...], **wanted: str | None) -> None:
    """Sum up: outcomes of decisions, and errors of predictions by rows."""
    from controller_service.commands.log_tables import errors_table, outcomes_table  # noqa: PLC0415
    from controller_service.logbook.figures import errors, outcomes  # noqa: PLC0415

    with _plainly():
        opened = _open(sources, "steps", wanted)
        counted, predicted = outcomes(opened), errors(opened)
    _none_of_it(opened, len(counted))
    printed = console()
    printed.print(outcomes_table(counted))
    printed.print(errors_table(predicted) if predicted else "no decode step was predicted")


@log.command()
@sources_argument
@table_option
@filters
@click.option("--columns", metavar="A,B,...", help="Which to export; default all.")
@click.option("-o", "--output", required=True, help="FILE.parquet, .csv or .jsonl; '-' is stdout.")
@click.option("--format", "form", type=click.Choice(FORMS), help="By default as FILE ends.")
def export(
    sources: tuple[str, ...],
    table: str,
    columns: str | None,
    output: str,
    form: str | None,
    **wanted: str | None,
) -> None:
    """Write records to a file of another kind."""
    form = form or output.rpartition(".")[2]
    if form not in FORMS:
        raise click.ClickException(
            f"-o {output}: its ending says none of {', '.join(FORMS)}; add --format"
        )
    if output == "-" and form == "parquet":
        raise click.ClickException("-o -: Parquet is not for standard output; name a file")
    if output != "-":
        require_writable("-o", Path(output), makes_parents=False)
    with _plainly():
        from controller_service.logbook.export import export as write  # noqa: PLC0415

        opened = _open(sources, table, wanted)
        written = write(opened.stream(_columns(opened, columns, ("all",))), output, form)
    click.echo(f"{written} records", err=True)


def _open(sources: tuple[str, ...], table: str, wanted: dict[str, str | None]) -> Log:
    from controller_service.logbook.query import Log  # noqa: PLC0415 - loads DuckDB

    if not sources:
        folder = os.environ.get(VARIABLE)
        if not folder:
            raise click.ClickException(f"name the log's folder, or set {VARIABLE}")
        sources = (folder,)
    return Log(
        sources,
        _filter(table, wanted),
        lambda damage: click.echo(f"skipped {damage.path}: {damage.reason}", err=True),
    )


def _filter(table: str, wanted: dict[str, str | None]) -> Filter:
    from controller_service.logbook.moments import parse_moment  # noqa: PLC0415
    from controller_service.logbook.query import Filter  # noqa: PLC0415

    now = datetime.now(UTC)
    moments: dict[str, datetime] = {}
    for name in ("since", "until"):
        text = wanted.get(name)
        if text is not None:
            try:
                moments[name] = parse_moment(text, now)
            except ValueError as error:
                raise click.ClickException(f"--{name}: {error}") from error
    rest = {name: text for name, text in wanted.items() if name not in ("since", "until")}
    _known("kind", rest.get("kind"))
    _known("outcome", rest.get("outcome"))
    return Filter(
        table=table,
        engine=rest.get("engine"),
        since=moments.get("since"),
        until=moments.get("until"),
        policy=rest.get("policy"),
        kind=rest.get("kind"),
        outcome=rest.get("outcome"),
        where=rest.get("where"),
    )


def _known(name: str, word: str | None) -> None:
    from governor_protos.messages import Outcome, StepKind  # noqa: PLC0415

    kind = StepKind if name == "kind" else Outcome
    words = [*(member.name.lower() for member in kind), "unknown"]
    if word is not None and word not in words:
        raise click.ClickException(f"--{name} {word}: expected one of {', '.join(words)}")


def _columns(opened: Log, text: str | None, otherwise: tuple[str, ...]) -> list[str]:
    names = otherwise if text is None else tuple(name.strip() for name in text.split(","))
    return opened.columns() if names == ("all",) else opened.pick(names)


def _none_of_it(opened: Log, found: int) -> None:
    if found:
        return
    if opened.files:
        raise click.ClickException("no record passes these filters")
    raise click.ClickException("no log file there, or none of that engine")


class _plainly:
    """Errors of logs and filters as one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from controller_service.logbook.query import BadFilter  # noqa: PLC0415
        from controller_service.logbook.reading import BadSource  # noqa: PLC0415

        if isinstance(error, (BadFilter, BadSource)):
            raise click.ClickException(str(error)) from error
        if isinstance(error, BrokenPipeError):
            return  # whoever read what is written has seen enough, which click takes quietly
        if isinstance(error, OSError):
            raise click.ClickException(f"{error.filename or 'log'}: {error.strerror}") from error
