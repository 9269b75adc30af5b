"""The tables that ``governor log`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from rich import box
from rich.table import Table

from controller_service.logbook.figures import EngineInLog


def records_table(records: pa.Table) -> Table:
    """One line a record; seconds are shown as milliseconds."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in records.column_names:
        kind = records.schema.field(name).type
        right = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        table.add_column(_heading(name), justify="right" if right else "left")
    for record in records.to_pylist():
        table.add_row(*(_cell(name, value) for name, value in record.items()))
    return table


def engines_table(found: Sequence[EngineInLog], spans: Mapping[str, tuple[Any, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("engine", "model", "device", "tp", "SGLang", "starts", "files", "MiB", "records"):
        table.add_column(name)
    table.add_column("from")
    table.add_column("to")
    for one in found:
        key = one.key
        first, last = spans.get(one.engine, (None, None))
        table.add_row(
            *(one.engine, key.model, key.device, str(key.tp_size), key.sglang_version),
            *(str(one.starts), str(one.files), f"{one.bytes / 2**20:.1f}", str(one.records)),
            *(_cell("time", first), _cell("time", last)),
        )
    return table


def outcomes_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="What became of decisions")
    for name in ("engine", "outcome", "steps", "of governed steps"):
        table.add_column(name, justify="right" if "steps" in name else "left")
    for row in rows:
        table.add_row(row["engine"], row["outcome"], str(row["steps"]), _share(row["share"]))
    return table


def errors_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Decode steps, predicted before they were learnt from")
    for name in ("engine", "rows", "steps", "p50, ms", "error", "bias", "within p90"):
        table.add_column(name, justify="left" if name == "engine" else "right")
    for row in rows:
        most = row["most_rows"]
        table.add_row(
            row["engine"],
            str(most) if most <= 2 else f"{most // 2 + 1}-{most}",
            str(row["steps"]),
            f"{row['latency_p50_s'] * 1e3:.2f}",
            _share(row["mape"]),
            f"{row['bias']:+.1%}",
            _share(row["p90_coverage"]),
        )
    return table


def _heading(name: str) -> str:
    return name.removesuffix("_s") + ", ms" if name.endswith("_s") else name


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    if isinstance(value, float):
        return f"{value * 1e3:.3f}" if name.endswith("_s") else f"{value:g}"
    return str(value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
