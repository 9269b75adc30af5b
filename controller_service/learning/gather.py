"""Steps out of many logs into bounded buckets, one store per kind of engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from controller_service.learning.arrays import floats, unpack
from controller_service.learning.distributed import run_tasks
from controller_service.learning.model import EngineKey
from controller_service.learning.regimes import Buckets
from controller_service.learning.samples import COLUMNS, Samples
from controller_service.logbook.reading import BadSource, Damage, list_files, read_samples

SAMPLES_SUFFIX = ".npz"
MAX_SAMPLES_BYTES = 256 << 20
"""A file of samples that a profile wrote."""


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose steps a file of samples holds: its array ``engine`` is this as JSON."""

    engine: EngineKey
    graph_rows: tuple[int, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """One file to read."""

    path: str
    engine: str | None
    """Only this engine's steps."""
    seed: int
    """Of the ranks of its samples; another one for each file."""


class Found(msgspec.Struct, frozen=True):
    """What one file held; plain values, to travel between processes."""

    path: str
    engine_id: str
    engine: EngineKey | None
    """None: nothing of the engine that was asked for."""
    graph_rows: tuple[int, ...]
    buckets: bytes
    damage: str = ""
    """Why the file was skipped."""


class Gathered(msgspec.Struct, eq=False):
    """Everything that was found of one kind of engine."""

    engine: EngineKey
    buckets: Buckets
    engine_ids: list[str]
    graph_rows: tuple[int, ...]
    sources: list[str]


def list_sources(sources: Sequence[str]) -> list[str]:
    """Files of logs, and of samples, in ``sources``.

    Raises:
        BadSource: one of them cannot be used.
    """
    samples = [source for source in sources if source.endswith(SAMPLES_SUFFIX)]
    logs = [source for source in sources if not source.endswith(SAMPLES_SUFFIX)]
    return samples + (list_files(logs) if logs else [])


def gather(
    paths: Sequence[str],
    engine: str | None = None,
    seed: int = 0,
    *,
    cluster: str | None = None,
    on_file: Callable[[Found], None] | None = None,
) -> list[Gathered]:
    """Read every file, here or on a cluster, and put the steps together by kind of engine.

    The buckets of many files merge into what one pass over all of them would have kept.

    Args:
        engine: only the engine of this name.
        cluster: see :func:`.distributed.run_tasks`; None: in this process, one after the other.
        on_file: told of each file, read or skipped, in any order.
    """
    tasks = [Task(path, engine, seed * 1_000_003 + index) for index, path in enumerate(paths)]
    if cluster:
        told = None if on_file is None else lambda _, found: on_file(found)
        return _merge(run_tasks(read_one, tasks, cluster=cluster, on_result=told), seed)
    results = []
    for task in tasks:
        results.append(read_one(task))
        if on_file is not None:
            on_file(results[-1])
    return _merge(results, seed)


def read_one(task: Task) -> Found:
    """One file into buckets. A damaged one is told, not raised."""
    try:
        if task.path.endswith(SAMPLES_SUFFIX):
            return _read_samples_file(task)
        return _read_log(task)
    except (BadSource, OSError, ValueError, msgspec.DecodeError, RecursionError) as error:
        return Found(task.path, "", None, (), b"", str(error)[:500])


def _read_log(task: Task) -> Found:
    damages: list[Damage] = []
    buckets = Buckets(seed=task.seed)
    origin = None
    for found, samples in read_samples([task.path], task.engine, on_damage=damages.append):
        origin = found
        buckets.add(samples)
    if damages:
        return Found(task.path, "", None, (), b"", damages[0].reason)
    if origin is None:
        return Found(task.path, "", None, (), b"")
    return Found(task.path, origin.engine_id, origin.engine, origin.graph_rows, buckets.to_bytes())


def _read_samples_file(task: Task) -> Found:
    path = Path(task.path)
    with path.open("rb") as file:
        data = file.read(MAX_SAMPLES_BYTES + 1)
    if len(data) > MAX_SAMPLES_BYTES:
        raise ValueError(f"larger than {MAX_SAMPLES_BYTES} bytes")
    arrays = unpack(data, path.name)
    if "engine" not in arrays:
        raise ValueError("it does not say whose steps these are: write it with governor profile")
    provenance = msgspec.json.decode(arrays["engine"].tobytes(), type=Provenance)
    columns = [floats(arrays, name, 1) for name in COLUMNS]
    if len({len(column) for column in columns}) != 1:
        raise ValueError("its columns differ in length")
    if task.engine not in (None, path.stem):
        return Found(task.path, path.stem, None, (), b"")
    buckets = Buckets(seed=task.seed)
    buckets.add(Samples(*columns))
    return Found(task.path, path.stem, provenance.engine, provenance.graph_rows, buckets.to_bytes())


def _merge(results: Sequence[Found], seed: int) -> list[Gathered]:
    kinds: dict[EngineKey, Gathered] = {}
    for found in results:
        if found.engine is None:
            continue
        one = kinds.get(found.engine)
        if one is None:
            one = kinds[found.engine] = Gathered(found.engine, Buckets(seed=seed), [], (), [])
        one.buckets.merge(Buckets.from_bytes(found.buckets, found.path))
        one.sources.append(found.path)
        one.graph_rows = one.graph_rows or found.graph_rows
        if found.engine_id not in one.engine_ids:
            one.engine_ids.append(found.engine_id)
    return list(kinds.values())
