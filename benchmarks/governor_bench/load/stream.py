"""The events of a streamed ``/generate`` reply, decoded no further than needed.

SGLang sends the output so far with every chunk, so that a client which decodes the ids of each
does work quadratic in the length. Where only times and counts matter, the ids are skipped.
"""

from __future__ import annotations

from typing import Any

import msgspec

from governor_bench.load.result import RequestResult


class _Finish(msgspec.Struct):
    type: str = ""
    message: str | None = None


class _Meta(msgspec.Struct):
    completion_tokens: int = 0
    finish_reason: _Finish | None = None


class _Chunk(msgspec.Struct):
    index: int = 0
    meta_info: _Meta | None = None
    error: Any = None


class _ChunkWithIds(_Chunk):
    output_ids: list[int] = []


class StreamReader:
    """Takes the lines of replies into results.

    Args:
        token_ids: keep every branch's token ids, not only their number.
        chunk_times: keep when every chunk came.
    """

    def __init__(self, *, token_ids: bool, chunk_times: bool = False) -> None:
        self._chunk_times = chunk_times
        self._decoder: msgspec.json.Decoder[_Chunk] = msgspec.json.Decoder(
            _ChunkWithIds if token_ids else _Chunk
        )

    def take(self, line: bytes, result: RequestResult, now_s: float) -> None:
        """Note what one line says, read at ``now_s`` after the start of the run.

        Raises:
            ValueError: the server sent something that is no chunk of a known branch.
        """
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            return
        chunk = self._decoder.decode(memoryview(line)[6:])
        meta = chunk.meta_info
        if chunk.error is not None or meta is None:
            result.error = str(chunk.error or "a chunk without meta_info")[:300]
            return
        if not 0 <= chunk.index < len(result.branches):
            raise ValueError(f"branch {chunk.index} of {len(result.branches)}")
        branch = result.branches[chunk.index]
        branch.tokens = meta.completion_tokens
        if self._chunk_times:
            branch.chunk_s.append(now_s)
        if isinstance(chunk, _ChunkWithIds):
            if len(chunk.output_ids) == meta.completion_tokens:
                branch.output_ids = chunk.output_ids
            elif len(branch.output_ids) < meta.completion_tokens:
                # A server with --incremental-streaming-output. Whoever is aborted while it waits
                # after a retraction is sent its last token twice.
                branch.output_ids.extend(chunk.output_ids)
        if meta.finish_reason is not None:
            branch.finish_reason = meta.finish_reason.type
            if branch.finish_reason == "abort" and not result.cut_off:
                result.error = f"aborted by the server: {meta.finish_reason.message or ''}"[:300]
        if meta.completion_tokens and result.first_token_s is None:
            result.first_token_s = now_s
        result.last_token_s = now_s
