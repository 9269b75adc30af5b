"""What the loaders of recorded traces share: which part is taken, and what a trace has not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import msgspec
import numpy as np
from msgspec import Meta

from governor_workloads.arrivals import MAX_REQUESTS
from governor_workloads.demands import Demands, draw_demands
from governor_workloads.errors import WorkloadError, explained
from governor_workloads.files import read_json
from governor_workloads.spec import Workload, WorkRequest


class TraceOptions(Demands, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a trace, how fast, and the demands to synthesise: a trace records none."""

    start_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    """Skip this much of the trace, in its own clock from its first request on."""
    duration_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    """Take this much of it, in its own clock; None: all."""
    rate_factor: Annotated[float, Meta(gt=0, le=1e3)] = 1.0
    """Requests arrive this many times as fast as recorded."""
    max_requests: Annotated[int, Meta(ge=1, le=MAX_REQUESTS)] = 100_000

    @classmethod
    def of(cls, data: object) -> Self:
        """Options from a plain dictionary.

        Raises:
            WorkloadError: a field is unknown or out of range.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise WorkloadError(f"trace options: {explained(error, cls)}") from None

    def checked(self) -> Self:
        """These options with every range checked, which making them in Python does not do."""
        return self.of(msgspec.to_builtins(self))


class Recorded(NamedTuple):
    """One request of a trace; ``time_s`` counts from the trace's own origin."""

    time_s: float
    prompt_tokens: int
    output_tokens: int
    prefix_blocks: tuple[int, ...] = ()


def read_options(path: Path) -> TraceOptions:
    """Options from a JSON file.

    Raises:
        WorkloadError: the file cannot be read, is larger than 1 MiB, or holds no options.
    """
    return read_json(path, TraceOptions.of)


def workload_of_trace(
    name: str,
    source: str,
    recorded: Iterable[Recorded],
    options: TraceOptions,
    seed: int,
    *,
    prefix_block_tokens: int = 512,
) -> Workload:
    """The chosen part of a trace with synthetic demands.

    Args:
        source: the trace in words, for the description.
        recorded: its requests by rising time; read no further than needed.

    Raises:
        WorkloadError: an option is out of range, times fall, or no request is left.
    """
    options = options.checked()
    taken = list(_taken(recorded, options))
    if not taken:
        raise WorkloadError(
            f"{source}: no request from start_s {options.start_s:g} on; choose an earlier start_s "
            "or a longer duration_s"
        )
    outputs = np.array([item.output_tokens for item in taken], dtype=np.int64)
    drawn = draw_demands(options, seed, outputs)
    span = "" if options.duration_s is None else f" for {options.duration_s:g} s"
    return Workload(
        name=name,
        description=(
            f"{source}, from {options.start_s:g} s{span}, {len(taken)} requests at "
            f"{options.rate_factor:g} times the recorded rate; recorded: arrivals and lengths; "
            f"synthetic, as the trace has none: {options.describe_demands()}; seed {seed}"
        ),
        requests=tuple(
            WorkRequest(
                index=index,
                arrival_s=item.time_s / options.rate_factor,
                prompt_tokens=item.prompt_tokens,
                output_tokens=output_tokens,
                branches=branches,
                ttft_slo_s=target.ttft_slo_s,
                tpot_slo_s=target.tpot_slo_s,
                prefix_blocks=item.prefix_blocks,
            )
            for index, (item, branches, output_tokens, target) in enumerate(
                zip(taken, *drawn, strict=True)
            )
        ),
        prefix_block_tokens=prefix_block_tokens,
        seed=seed,
    )


def _taken(recorded: Iterable[Recorded], options: TraceOptions) -> Iterator[Recorded]:
    """The chosen requests, timed from ``start_s`` on."""
    origin_s = previous_s = None
    count = 0
    for number, item in enumerate(recorded, start=1):
        if origin_s is None or previous_s is None:
            origin_s = previous_s = item.time_s
        if item.time_s < previous_s:
            raise WorkloadError(
                f"request {number}: {previous_s - item.time_s:g} s before the one ahead of it; "
                "sort the trace by time"
            )
        previous_s = item.time_s
        time_s = item.time_s - origin_s - options.start_s
        if time_s < 0:
            continue
        if options.duration_s is not None and time_s >= options.duration_s:
            return
        yield item._replace(time_s=time_s)
        count += 1
        if count == options.max_requests:
            return
