"""Mooncake's traces (FAST'25): JSON lines with the blocks that prompts share.

``timestamp`` in ms, ``input_length`` and ``output_length`` in tokens, and ``hash_ids``: one id for
each block of 512 prompt tokens, where equal ids are equal text. The project does not contain them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from governor_workloads.errors import WorkloadError
from governor_workloads.files import bounded_lines
from governor_workloads.lengths import MAX_TOKENS, Tokens
from governor_workloads.spec import Workload
from governor_workloads.traces import Recorded, TraceOptions, workload_of_trace

BLOCK_TOKENS = 512
MAX_LINE_BYTES = 1 << 20

BlockId = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: Annotated[float, Meta(ge=0)]
    input_length: Tokens
    output_length: Tokens
    hash_ids: Annotated[tuple[BlockId, ...], Meta(max_length=MAX_TOKENS // BLOCK_TOKENS)] = ()


def load_mooncake(path: Path, options: TraceOptions | None = None, seed: int = 0) -> Workload:
    """A part of the trace as an open-loop workload; ``seed`` draws what it does not hold.

    Raises:
        WorkloadError: the file or an option is unusable; the message names line and field.
    """
    return workload_of_trace(
        path.stem,
        f"Mooncake trace, {path.name}, prefix blocks of {BLOCK_TOKENS} tokens as recorded",
        _requests(path),
        options or TraceOptions(),
        seed,
        prefix_block_tokens=BLOCK_TOKENS,
    )


def _requests(path: Path) -> Iterator[Recorded]:
    decoder = msgspec.json.Decoder(_Line)
    for number, text in enumerate(bounded_lines(path, MAX_LINE_BYTES), start=1):
        if not text:
            continue
        try:
            line = decoder.decode(text)
        except msgspec.DecodeError as error:
            raise WorkloadError(f"{path}, line {number}: {error}") from None
        yield Recorded(line.timestamp / 1e3, line.input_length, line.output_length, line.hash_ids)
