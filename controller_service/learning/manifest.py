"""What a model on disk says of itself, and the hash that holds it together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Annotated

import msgspec
from msgspec import Meta

from controller_service.learning.evaluate import RegimeError
from controller_service.learning.model import EngineKey
from controller_service.version import package_version

SCHEMA_VERSION = 1
HASH_LENGTH = 64
MODEL_ID_LENGTH = 12
FILE_NAME = re.compile(r"[a-z0-9_]{1,40}\.(npz|txt|json)")
LIBRARIES = ("lightgbm", "msgspec", "numpy", "scikit-learn", "scipy")

_Sha = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_Share = Annotated[float, Meta(ge=0)]
_Text = Annotated[str, Meta(max_length=1000)]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model."""

    name: Annotated[str, Meta(max_length=64)]
    size: Annotated[int, Meta(ge=0)]
    """Bytes."""
    sha256: _Sha


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model was fitted to."""

    samples: int
    """In the buckets."""
    offered: int
    """Steps that the buckets are a fair sample of."""
    regimes: int
    sources: Annotated[tuple[_Text, ...], Meta(max_length=64)] = ()
    """The first 64 of them."""
    source_count: int = 0
    ends: int = 0
    """Ended requests that lengths and acceptance were fitted to."""


class Holdout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Errors of this family on steps held out, before the last fit to everything."""

    samples: int
    step_mape: _Share
    step_p90_coverage: _Share
    unseen_samples: int
    """Steps of regimes that were held out as a whole."""
    unseen_mape: _Share | None
    unseen_p90_coverage: _Share | None
    externality_error: _Share | None
    """From measured steps alone; see :func:`.evaluate.measured_externality_error`."""
    by_regime: tuple[RegimeError, ...]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a model has to agree with to be loaded."""

    schema_version: int
    model_id: Annotated[str, Meta(min_length=4, max_length=64)]
    """Short hash of its files and its engine: equal models have equal ids."""
    created: datetime
    governor_version: _Text
    libraries: dict[str, _Text]
    engine: EngineKey
    family: _Text
    features: tuple[_Text, ...]
    graph_rows: tuple[int, ...]
    seed: int
    data: Data
    holdout: Holdout | None
    files: Annotated[tuple[FileEntry, ...], Meta(min_length=1, max_length=16)]
    hash: _Sha = "0" * HASH_LENGTH
    """SHA-256 of the manifest's file with zeros in this place."""


def make_manifest(
    *,
    engine: EngineKey,
    family: str,
    features: tuple[str, ...],
    graph_rows: tuple[int, ...],
    seed: int,
    data: Data,
    holdout: Holdout | None,
    files: Mapping[str, bytes],
) -> Manifest:
    """A manifest of ``files`` as of now, by this Governor and these libraries."""
    entries = tuple(
        FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in sorted(files.items())
    )
    told = msgspec.json.encode([engine, family, entries])
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=hashlib.sha256(told).hexdigest()[:MODEL_ID_LENGTH],
        created=datetime.now(UTC).replace(microsecond=0),
        governor_version=package_version(),
        libraries=installed(LIBRARIES),
        engine=engine,
        family=family,
        features=features,
        graph_rows=graph_rows,
        seed=seed,
        data=data,
        holdout=holdout,
        files=entries,
    )


def seal(manifest: Manifest) -> bytes:
    """The manifest as its file, with its hash filled in."""
    zeros = "0" * HASH_LENGTH
    blank = msgspec.structs.replace(manifest, hash=zeros)
    content = msgspec.json.format(msgspec.json.encode(blank), indent=1)
    digest = hashlib.sha256(content).hexdigest()
    head, found, tail = content.rpartition(zeros.encode())
    return head + (digest.encode() if found else b"") + tail


def sealed(content: bytes, claimed: str) -> bool:
    """Whether ``content`` is what :func:`seal` wrote, to the byte."""
    head, found, tail = content.rpartition(claimed.encode())
    blank = head + b"0" * HASH_LENGTH + tail
    return bool(found) and hashlib.sha256(blank).hexdigest() == claimed


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
