"""``docs/results/gpu.md`` from saved files. What was not measured is named, and no figure stands
for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from governor_bench.eval.tables import table
from governor_bench.gpu.plots import plot_all
from governor_bench.gpu.results import ResultError, StageResult, read_result, read_target
from governor_bench.gpu.sections import section
from governor_bench.gpu.stage import Stage
from governor_bench.gpu.stages import STAGES
from governor_bench.gpu.target import Target

SAMPLE = "> **Sample**, from a dry run on a CPU: nothing below was measured on a GPU."
NONE_YET = (
    "**No GPU has run this yet.** None of the figures below exists; this page is written anew once "
    "there are files of `governor gpu run --device cuda`."
)


class Measured(NamedTuple):
    """What a folder holds."""

    folder: Path
    target: Target
    results: dict[str, StageResult]


def write(folders: Sequence[Path], output: Path) -> None:
    """Write the document to ``output`` and its plots beside it.

    Raises:
        ResultError: a folder holds no results, damaged ones, or a dry run beside a GPU's.
    """
    found = [read_folder(folder) for folder in folders]
    plots = plot_all(found, output.parent / "plots" / "gpu")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(compose(found, [str(path.relative_to(output.parent)) for path in plots]))


def read_folder(folder: Path) -> Measured:
    """
    Raises:
        ResultError: the folder holds no results or damaged ones.
    """
    target = read_target(folder)
    if target is None:
        raise ResultError(f"{folder}: no results of 'governor gpu run' are there")
    read = {stage.name: read_result(folder, stage.name) for stage in STAGES}
    return Measured(folder, target, {name: one for name, one in read.items() if one is not None})


def compose(found: Sequence[Measured], plots: Sequence[str] = ()) -> str:
    """The document's text.

    Raises:
        ResultError: a dry run stands beside a GPU's results.
    """
    devices = {one.target.device for one in found}
    if len(devices) > 1:
        dry = ", ".join(str(one.folder) for one in found if one.target.device == "cpu")
        raise ResultError(f"{dry}: a dry run on the CPU; it does not stand beside a GPU's results")
    parts = [SAMPLE] if devices == {"cpu"} else []
    parts.append(
        "# On a GPU\n\nWritten by `governor gpu report` from the files of `governor gpu run`; how "
        "to run it is in [gpu.md](../gpu.md). Dummy weights, prompts of random token ids. Tier "
        f"{'C' if devices == {'cpu'} else 'G'}."
    )
    if not found:
        parts.append(NONE_YET)
        parts.append("Missing:\n\n" + "\n".join(f"- `{s.name}`: {s.about}" for s in STAGES))
    for one in found:
        parts += _of_folder(one)
    if plots:
        parts.append("## Plots\n\n" + "\n\n".join(f"![{Path(p).stem}]({p})" for p in plots))
    return "\n\n".join(parts) + "\n"


def _of_folder(one: Measured) -> list[str]:
    arguments = " ".join(one.target.engine_arguments)
    title = f"## Model {one.target.model} on {_device(one)}"
    extra = f"Further engine arguments: `{arguments}`." if arguments else ""
    sections = [
        f"### {heading(stage)}\n\n" + section(result.figures)
        for stage in STAGES
        if (result := one.results.get(stage.name)) is not None and result.figures is not None
    ]
    return [title, *([extra] if extra else []), _state(one), *sections]


def heading(stage: Stage) -> str:
    """Of its section."""
    return stage.about[0].upper() + stage.about[1:]


def _device(one: Measured) -> str:
    if one.target.device == "cpu":
        return "the reference CPU platform"
    result = one.results.get("bringup")
    return str(getattr(None if result is None else result.figures, "device", "a GPU"))


def _state(one: Measured) -> str:
    rows = []
    for stage in STAGES:
        result = one.results.get(stage.name)
        if result is None:
            rows.append((f"`{stage.name}`", "**missing**", "", ""))
            continue
        why = result.reason.strip().rpartition("\n")[2][:200].replace("|", "\\|")
        state = result.status if result.status == "done" else f"**{result.status}**"
        rows.append((f"`{stage.name}`", state, f"{result.envelope.seconds:.0f}", why))
    return table(("stage", "state", "s", "why"), rows)
