"""Models that must be refused, made from one that need not be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from controller_service.learning.artifact import load_model, read_manifest, save_model
from controller_service.learning.manifest import SCHEMA_VERSION

MANIFEST = "manifest.json"


def cut_short(folder: Path) -> None:
    """The largest file loses its second half."""
    largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: len(content) // 2])


def edited(folder: Path) -> None:
    """One byte of a file of numbers is another one."""
    first = next(path for path in sorted(folder.iterdir()) if path.name != MANIFEST)
    content = bytearray(first.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    first.write_bytes(bytes(content))


def other_version(folder: Path) -> None:
    """The manifest is of a schema that this Governor does not know."""
    path = folder / MANIFEST
    now, later = f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}'
    path.write_text(path.read_text().replace(now, later))


def other_engine(folder: Path) -> None:
    """Sound in itself, and fitted to another device."""
    loaded, manifest = load_model(folder), read_manifest(folder)
    extras = {
        entry.name: (folder / entry.name).read_bytes()
        for entry in manifest.files
        if entry.name not in loaded.model.files()
    }
    engine = msgspec.structs.replace(manifest.engine, device="another device")
    save_model(folder, loaded.model, msgspec.structs.replace(manifest, engine=engine), extras)


def absent(folder: Path) -> None:
    """There is nothing."""
    shutil.rmtree(folder)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut short": cut_short,
    "edited": edited,
    "of another version": other_version,
    "of another engine": other_engine,
    "missing": absent,
}
"""What was done to a copy of the model, by name."""
