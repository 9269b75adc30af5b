"""The process in which a controller has a model fitted: samples in, artifact folder out.

``python -m controller_service.learning.background SAMPLES.npz OUT_DIR --family boosted ...``.
Started by :class:`.refit.BackgroundRefits`; ends with 0 and a folder, or says why on stderr.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import click
import msgspec

from controller_service.learning.model import EngineKey
from controller_service.learning.sample_file import BadSampleFile, load_samples
from controller_service.parent import end_with_parent

NICENESS = 10
CPU_LIMIT_S = 300


@click.command()
@click.argument("samples", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--family", required=True)
@click.option("--engine", required=True, help="An EngineKey as JSON.")
@click.option("--graph-rows", default="", help="Captured batch sizes, separated by commas.")
@click.option("--seed", type=int, default=0)
def main(samples: Path, out: Path, family: str, engine: str, graph_rows: str, seed: int) -> None:
    """Fit FAMILY to SAMPLES and write the model to OUT."""
    end_with_parent()
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    from controller_service.learning.artifact import save_model  # noqa: PLC0415 - after the limits
    from controller_service.learning.fit import fit  # noqa: PLC0415

    try:
        key = msgspec.json.decode(engine, type=EngineKey)
        sizes = tuple(int(size) for size in graph_rows.split(",") if size)
        result = fit(load_samples(samples), key, (family,), sizes, seed)
    except (BadSampleFile, ValueError) as error:
        raise click.ClickException(str(error)) from error
    save_model(out, result.model, result.manifest)


if __name__ == "__main__":
    main()
