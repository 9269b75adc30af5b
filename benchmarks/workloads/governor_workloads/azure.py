"""The Azure LLM inference trace of 2023 (Azure Public Dataset, CC-BY-4.0).

CSV with the columns ``TIMESTAMP,ContextTokens,GeneratedTokens``: arrival time, prompt tokens,
output tokens. The project does not contain the trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from governor_workloads.errors import WorkloadError
from governor_workloads.files import bounded_lines
from governor_workloads.lengths import MAX_TOKENS
from governor_workloads.spec import Workload
from governor_workloads.traces import Recorded, TraceOptions, workload_of_trace

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MAX_ROW_BYTES = 1024


def load_azure(path: Path, options: TraceOptions | None = None, seed: int = 0) -> Workload:
    """A part of the trace as an open-loop workload; ``seed`` draws what it does not hold.

    Raises:
        WorkloadError: the file or an option is unusable; the message names line and column.
    """
    return workload_of_trace(
        path.stem,
        f"Azure LLM inference trace 2023, {path.name}",
        _rows(path),
        options or TraceOptions(),
        seed,
    )


def _rows(path: Path) -> Iterator[Recorded]:
    lines = enumerate(bounded_lines(path, MAX_ROW_BYTES), start=1)
    _, header = next(lines, (1, ""))
    if header != ",".join(COLUMNS):
        raise WorkloadError(
            f"{path}, line 1: expected the columns {','.join(COLUMNS)}, got {header[:80]}"
        )
    for number, line in lines:
        if not line:
            continue
        row = line.split(",")  # the trace quotes nothing
        where = f"{path}, line {number}"
        if len(row) != len(COLUMNS):
            raise WorkloadError(f"{where}: expected {len(COLUMNS)} columns, got {len(row)}")
        yield Recorded(_time_s(row[0], where), _tokens(row[1], 1, where), _tokens(row[2], 2, where))


def _time_s(text: str, where: str) -> float:
    try:
        # A day is taken as UTC: only differences count.
        return datetime.fromisoformat(f"{text}+00:00").timestamp()
    except ValueError:
        raise WorkloadError(
            f"{where}, column {COLUMNS[0]}: expected a time such as 2023-11-16 18:15:46.6805900, "
            f"got {text[:40]!r}"
        ) from None


def _tokens(text: str, column: int, where: str) -> int:
    tokens = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    if not 1 <= tokens <= MAX_TOKENS:
        raise WorkloadError(
            f"{where}, column {COLUMNS[column]}: expected a whole number from 1 to {MAX_TOKENS}, "
            f"got {text[:40]!r}"
        )
    return tokens
