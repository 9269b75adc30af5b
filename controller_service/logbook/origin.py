"""Whose steps a log file holds. The file says so itself, so that it can be moved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from governor_protos.messages import Hello

from controller_service.learning.model import EngineKey
from controller_service.logbook.schema import SCHEMA_VERSION

METADATA_KEY = b"governor"
MAX_METADATA_BYTES = 64 << 10
LONGEST_FOLDER = 120


class NotALog(ValueError):
    """A file that is not one of the log's, or not one that this version reads; says why."""


class Origin(msgspec.Struct, frozen=True, eq=False):
    """One start of one engine. Compared by identity: a session has one of its own."""

    engine_id: str
    incarnation: str
    engine: EngineKey
    graph_rows: tuple[int, ...]
    """Batch sizes with captured graphs, ascending."""
    governor_version: str
    table: str = "steps"
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, hello: Hello, governor_version: str) -> Origin:
        key = EngineKey(hello.model, hello.device, hello.tp_size, hello.sglang_version)
        graphs = tuple(hello.graph_rows)
        return cls(hello.engine_id, hello.incarnation, key, graphs, governor_version)

    def metadata(self, table: str) -> dict[bytes, bytes]:
        """What a file of ``table`` says about itself."""
        return {METADATA_KEY: msgspec.json.encode(msgspec.structs.replace(self, table=table))}

    @property
    def folder(self) -> str:
        """``engine=NAME``, safe as the name of a folder and short enough."""
        name = quote(self.engine_id, safe="")
        if len(name) > LONGEST_FOLDER:
            name = name[:LONGEST_FOLDER] + "~" + _digest(self.engine_id.encode())
        return f"engine={name}"

    @property
    def tag(self) -> str:
        """Tells the files of this start of the engine from those of another."""
        return _digest(msgspec.json.encode(self))


def read_origin(metadata: Mapping[bytes, bytes] | None) -> Origin:
    """From a file's metadata.

    Raises:
        NotALog: none of ours, damaged, or of another version of the log.
    """
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise NotALog("not a file of Governor's log")
    if len(text) > MAX_METADATA_BYTES:
        raise NotALog(f"its metadata is larger than {MAX_METADATA_BYTES} bytes")
    try:
        origin = msgspec.json.decode(text, type=Origin)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotALog(f"its metadata cannot be read: {error}") from error
    if origin.schema_version != SCHEMA_VERSION:
        raise NotALog(
            f"written as version {origin.schema_version} of the log, this Governor reads "
            f"{SCHEMA_VERSION}: use the Governor that wrote it ({origin.governor_version})"
        )
    return origin


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=6).hexdigest()
