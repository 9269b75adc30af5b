"""A model on disk: a folder of files and a manifest that all of them must agree with.

Nothing is parsed before its hash was checked, every read is bounded, and nothing is a pickle. The
hashes tell damage and mix-ups; they are no signature: whoever may write the folder may write a
model.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.learning.families import Family, family, family_names
from controller_service.learning.lengths import LengthModel
from controller_service.learning.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    Manifest,
    installed,
    seal,
    sealed,
)
from controller_service.learning.model import EngineKey, StepModel

MANIFEST = "manifest.json"
LENGTHS = "lengths.npz"
ACCEPTANCE = "acceptance.npz"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20
MAX_FILES_BYTES = 128 << 20
"""All files of a model together."""

Reason = Literal[
    "missing",
    "too_large",
    "unreadable",
    "not_a_manifest",
    "schema_version",
    "hash",
    "engine",
    "family",
    "features",
    "library",
]

__all__ = ["LoadedModel", "Manifest", "ModelRefused", "Reason", "load_model", "save_model"]


class ModelRefused(ValueError):
    """A model must not be used; ``reason`` is for machines, the message for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class LoadedModel(msgspec.Struct, frozen=True, eq=False):
    """A model that agrees with its manifest."""

    model: StepModel
    manifest: Manifest
    lengths: LengthModel | None = None
    acceptance: AcceptanceModel | None = None


def save_model(
    folder: Path,
    model: StepModel,
    manifest: Manifest,
    extras: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model so that ``folder`` holds all of it or, if this fails, what it held before.

    A folder that holds another model is replaced.

    Args:
        extras: files beside the model's own, named in the manifest as well.

    Raises:
        ValueError: the manifest is not that of this model.
        FileExistsError: ``folder`` holds something else than a model.
        OSError: it cannot be written.
    """
    files = {**model.files(), **(extras or {})}
    told = {entry.name: entry.sha256 for entry in manifest.files}
    if told != {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}:
        raise ValueError("the manifest does not describe the files of this model")
    folder = folder.absolute()
    if folder.exists() and not _replaceable(folder):
        raise FileExistsError(f"{folder} exists and holds no model: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.new-{secrets.token_hex(4)}")
    try:
        fresh.mkdir()
        for name, content in {**files, MANIFEST: seal(manifest)}.items():
            _write(fresh / name, content)
        _swap_in(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load_model(folder: Path, engine: EngineKey | None = None) -> LoadedModel:
    """Read a model back.

    Args:
        engine: whose steps it is to predict; None: any.

    Raises:
        ModelRefused: anything disagrees.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    kind = _checked_family(folder, manifest)
    if engine is not None and manifest.engine != engine:
        raise ModelRefused(
            "engine",
            f"{folder} was fitted to {_told(manifest.engine)}, this is {_told(engine)}: fit one "
            "from this engine's own log",
        )
    files = _files(folder, manifest)
    lengths, acceptance = files.pop(LENGTHS, None), files.pop(ACCEPTANCE, None)
    try:
        return LoadedModel(
            kind.load(files),
            manifest,
            None if lengths is None else LengthModel.from_bytes(lengths),
            None if acceptance is None else AcceptanceModel.from_bytes(acceptance),
        )
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise ModelRefused("unreadable", f"{folder} does not hold a model: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, checked for itself; the files are not read.

    Raises:
        ModelRefused: it is missing, damaged or of another version.
    """
    return _manifest(Path(folder))


def _manifest(folder: Path) -> Manifest:
    content = _read(folder, MANIFEST, MAX_MANIFEST_BYTES)
    try:
        found = msgspec.json.decode(content, type=_Versioned).schema_version
        if found != SCHEMA_VERSION:
            raise ModelRefused(
                "schema_version",
                f"{folder} has schema version {found}, this Governor reads {SCHEMA_VERSION}: fit "
                "the model again",
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(
            "not_a_manifest", f"{folder / MANIFEST} is no manifest: {error}"
        ) from error
    if not sealed(content, manifest.hash):
        raise ModelRefused("hash", f"{folder / MANIFEST} was changed after it was written")
    return manifest


class _Versioned(msgspec.Struct):
    schema_version: int


def _checked_family(folder: Path, manifest: Manifest) -> Family:
    if manifest.family not in family_names():
        raise ModelRefused(
            "family",
            f"{folder} is of family {manifest.family!r}; known: {', '.join(family_names())}",
        )
    try:
        kind = family(manifest.family)
    except ImportError as error:
        raise ModelRefused("library", f"{folder} needs what is not here: {error}") from error
    if manifest.features != kind.features:
        raise ModelRefused(
            "features",
            f"{folder} looks at {', '.join(manifest.features)}, this Governor's "
            f"{manifest.family} at {', '.join(kind.features)}: fit it again",
        )
    here = installed(kind.libraries)
    for name in kind.libraries:
        theirs, ours = manifest.libraries.get(name), here.get(name)
        if theirs is None or ours is None or _major(theirs) != _major(ours):
            raise ModelRefused(
                "library",
                f"{folder} was written with {name} {theirs}, here is {ours}: fit it again",
            )
    return kind


def _files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    if sum(entry.size for entry in manifest.files) > MAX_FILES_BYTES:
        raise ModelRefused("too_large", f"{folder} claims more than {MAX_FILES_BYTES} bytes")
    found = {}
    for entry in manifest.files:
        if not FILE_NAME.fullmatch(entry.name) or entry.name == MANIFEST:
            raise ModelRefused("not_a_manifest", f"{folder} names a file {entry.name!r}")
        content = _read(folder, entry.name, MAX_FILE_BYTES)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ModelRefused(
                "hash", f"{folder / entry.name} was cut or changed after it was written"
            )
        found[entry.name] = content
    return found


def _read(folder: Path, name: str, most_bytes: int) -> bytes:
    """A regular file right inside ``folder``, no link, read within bounds."""
    path = folder / name
    try:
        # NOTE: not to follow a link, and not to wait for the writer of a pipe.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ModelRefused("missing", f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise ModelRefused("unreadable", f"{path} cannot be opened: {error}") from error
    with os.fdopen(file, "rb") as opened:
        try:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise ModelRefused("unreadable", f"{path} is not a regular file")
            content = opened.read(most_bytes + 1)
        except OSError as error:
            raise ModelRefused("unreadable", f"{path} cannot be read: {error}") from error
    if len(content) > most_bytes:
        raise ModelRefused("too_large", f"{path} is larger than {most_bytes} bytes")
    return content


def _replaceable(folder: Path) -> bool:
    """Empty, or a model and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {inside.name for inside in folder.iterdir()}
    return not names or (
        MANIFEST in names and all(FILE_NAME.fullmatch(name) is not None for name in names)
    )


def _swap_in(fresh: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old-{secrets.token_hex(4)}")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync_folder(folder.parent)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _major(version: str) -> str:
    return version.split(".", maxsplit=1)[0]


def _told(engine: EngineKey) -> str:
    return f"{engine.model} on {engine.device}, tp {engine.tp_size}, SGLang {engine.sglang_version}"
