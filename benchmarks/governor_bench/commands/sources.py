"""The options with which a command is told what to serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from governor_workloads.spec import Workload

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Source(NamedTuple):
    """One of a mix and two kinds of traces."""

    mix: Path | None
    azure: Path | None
    mooncake: Path | None
    trace_options: Path | None

    @property
    def name(self) -> str:
        """The file's name, without the folder: that belongs to one machine."""
        path = self.mix or self.azure or self.mooncake
        return path.name if path else ""


def source_options(command: F) -> F:
    """Add ``--mix``, ``--azure``, ``--mooncake`` and ``--trace-options``."""
    options = (
        click.option("--mix", type=FILE, help="Synthetic workload: a mix file (JSON)."),
        click.option("--azure", type=FILE, help="Azure LLM inference trace 2023 (CSV)."),
        click.option("--mooncake", type=FILE, help="Mooncake trace (JSON lines)."),
        click.option(
            "--trace-options", type=FILE, help="Part of a trace and synthetic demands (JSON)."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def workload_of(source: Source, seed: int) -> Workload:
    """
    Raises:
        click.UsageError: there is not exactly one source, or its file is unusable.
    """
    from governor_workloads.azure import load_azure
    from governor_workloads.errors import WorkloadError
    from governor_workloads.generator import generate
    from governor_workloads.mix import read_mix
    from governor_workloads.mooncake import load_mooncake
    from governor_workloads.traces import TraceOptions, read_options

    try:
        options = TraceOptions()
        if source.mix is None and source.trace_options is not None:
            options = read_options(source.trace_options)
        match source:
            case Source(Path() as path, None, None, None):
                return generate(read_mix(path), seed)
            case Source(None, Path() as path, None, _):
                return load_azure(path, options, seed)
            case Source(None, None, Path() as path, _):
                return load_mooncake(path, options, seed)
    except WorkloadError as error:
        raise click.UsageError(str(error)) from None
    raise click.UsageError(
        "give exactly one of --mix, --azure and --mooncake; --trace-options goes with the last two"
    )
