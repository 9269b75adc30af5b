"""``governor gpu``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from governor_bench.commands.output import finish, json_option, progress_bar
from governor_bench.envelope import Stopwatch, envelope
from governor_bench.processes import like_ctrl_c

if TYPE_CHECKING:
    from governor_bench.gpu.run import Line
    from governor_bench.gpu.stage import Stage

RESULTS = Path("benchmarks/results/gpu")
MODELS = Path("benchmarks/gpu/models")
DOCUMENT = Path("docs/results/gpu.md")
_folder = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def gpu() -> None:
    """Bring up, calibrate and confirm on a real GPU. See docs/gpu.md."""


@gpu.command("run")
@click.option("--stages", default="all", show_default=True, help="Names with commas, or 'all'.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the results, of one model on one device.",
)
@click.option("--model", type=click.Choice(["0.6b", "8b", "32b", "tiny"]), required=True)
@click.option("--minutes", type=click.FloatRange(0.1, 1440), default=9.0, show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option(
    "--resume/--fresh", default=True, show_default=True, help="Keep stages that are done, or not."
)
@click.option(
    "--models",
    type=click.Path(file_okay=False, path_type=Path),
    default=MODELS,
    show_default=True,
    help="Folder with a folder for each model's config.json.",
)
@click.option(
    "--archive",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .tar.gz: restored into --out at the start, written anew after each stage.",
)
@click.option("--engine-args", default="", help="Further arguments of every server.")
@json_option
def run(
    stages: str,
    out: Path,
    model: str,
    minutes: float,
    device: str,
    resume: bool,
    models: Path,
    archive: Path | None,
    engine_args: str,
    json_path: str,
) -> None:
    """Run stages, one result file each; exit status 1 if one failed.

    Stages for which there is no time are left for the next call of the same command.
    """
    from governor_bench.gpu.archive import pack, unpack
    from governor_bench.gpu.results import ResultError, claim
    from governor_bench.gpu.rig import Rig
    from governor_bench.gpu.run import run_stages
    from governor_bench.gpu.stage import Context
    from governor_bench.gpu.target import WrongTarget, sizes_of, target_of

    chosen = _chosen(stages)
    stopwatch = Stopwatch()
    arguments = {"stages": stages, "model": model, "device": device, "minutes": minutes}
    try:
        target = target_of(device, model, tuple(engine_args.split()))  # type: ignore[arg-type]
        if archive is not None and archive.exists() and resume:
            unpack(archive, out)
        claim(out, target)
        with (
            like_ctrl_c(),
            tempfile.TemporaryDirectory(prefix="governor-") as sockets,
            progress_bar() as progress,
        ):
            task = progress.add_task("starting", total=None)

            def tell(text: str) -> None:
                progress.update(task, description=text)

            with Rig(target, models, Path(sockets), (out / "logs").resolve(), tell) as rig:
                lines = run_stages(
                    chosen,
                    Context(target, sizes_of(target), out, rig, tell),
                    60 * minutes,
                    resume=resume,
                    arguments=dict(arguments),
                    saved=lambda: None if archive is None else _note(pack(out, archive)),
                )
    except WrongTarget as error:
        raise click.UsageError(str(error)) from None
    except ResultError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; the same command goes on from here") from None
    report = {
        "stages": [line._asdict() for line in lines],
        **envelope(
            tier="G" if device == "cuda" else "C",
            seeds=[1],
            arguments=dict(arguments),
            stopwatch=stopwatch,
        ),
    }
    finish(report, json_path, _summary(lines, out))
    if any(line.became == "failed" for line in lines):
        raise SystemExit(1)


@gpu.command("stages")
@click.option("--model", type=click.Choice(["0.6b", "8b", "32b", "tiny"]), default="32b")
def stages_of(model: str) -> None:
    """List the stages, and what each is expected to take."""
    from governor_bench.gpu.stages import STAGES
    from governor_bench.gpu.target import SIZES

    sizes = SIZES[model]  # type: ignore[index]
    for stage in STAGES:
        shared = frozenset() if "drafting" in stage.servers else frozenset(stage.servers)
        click.echo(f"{stage.name:12} {stage.expected_s(sizes, shared):5.0f} s  {stage.about}")
    click.echo(f"and {sizes.start_s:.0f} s for each start of a server; estimates")


@gpu.command("report")
@click.argument("folders", nargs=-1, type=_folder)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DOCUMENT,
    show_default=True,
)
def report(folders: tuple[Path, ...], output: Path) -> None:
    """Write the document from folders of results; without any, from those in benchmarks/results."""
    from governor_bench.gpu.report import write
    from governor_bench.gpu.results import ResultError

    found = folders or tuple(sorted(path.parent for path in RESULTS.glob("*/target.json")))
    try:
        write(found, output)
    except ResultError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {output} from {len(found)} folders")


@gpu.command("adopt")
@click.argument("folder", type=_folder)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("profiles/governor_profiles/data"),
    show_default=True,
)
def adopt(folder: Path, to: Path) -> None:
    """Make the profile measured in FOLDER one of those that come along."""
    from governor_profiles import ProfileError

    from governor_bench.gpu.adopt import adopt as take
    from governor_bench.gpu.results import ResultError

    try:
        path = take(folder, to)
    except (ResultError, ProfileError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {path}")


def _chosen(names: str) -> Sequence[Stage]:
    from governor_bench.gpu.stages import STAGES

    if names == "all":
        return STAGES
    known = {stage.name for stage in STAGES}
    asked = set(names.split(","))
    if unknown := asked - known:
        raise click.BadParameter(
            f"no stage {', '.join(sorted(unknown))}; choose of {', '.join(sorted(known))}",
            param_hint="--stages",
        )
    return [stage for stage in STAGES if stage.name in asked]


def _note(left: list[str]) -> None:
    for name in left:
        click.echo(f"too large for the archive: {name}", err=True)


def _summary(lines: Sequence[Line], out: Path) -> str:
    rows = [
        f"{line.stage:12} {line.became:8} {line.seconds:6.1f} s  {line.why}".rstrip()
        for line in lines
    ]
    left = [line.stage for line in lines if line.became in {"no time", "waits"}]
    more = f"left for another call: {', '.join(left)}" if left else "nothing is left"
    return "\n".join([*rows, f"{out}: {more}"])
