"""Sound models and logs, made once, for a fuzzer to harm."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from governor_protos.messages import Hello, RequestEnd, StepFeedback

from controller_service.learning.acceptance import AcceptanceModel
from controller_service.learning.fit import fit
from controller_service.learning.lengths import LengthModel
from controller_service.learning.manifest import (
    HASH_LENGTH,
    FileEntry,
    Manifest,
    seal,
)
from controller_service.learning.model import EngineKey
from controller_service.learning.samples import Samples
from controller_service.logbook.book import Logbook
from controller_service.records import Expectation, StepLog

ENGINE = EngineKey("model", "device", 1, "0.5.17")
HELLO = Hello(1, 0, "e", "i", "0", "0.5.17", "model", 1, 0, False, 8, 64, 64, 1, -1, "", [], [])


@cache
def model_files(family: str) -> tuple[Manifest, dict[str, bytes]]:
    """A small fitted model: its manifest, and its files with those of requests beside them."""
    random = np.random.default_rng(1)
    rows = np.rint(np.exp2(random.uniform(0, 6, 400)))
    context = np.rint(rows * np.exp2(random.uniform(5, 10, 400)))
    bent = 0.015 + 6e-5 * rows + 5e-8 * context + 2e-3 * np.ceil(rows / 16)
    zeros = np.zeros(400)
    found = fit(Samples(rows, context, zeros, zeros, bent), ENGINE, (family,), (1, 2, 4, 8))
    lengths = LengthModel(
        np.array([0.0, 8.0, 64.0]),
        np.array([1.0, 5.0]),
        np.array([[1.0, 0.5, 0.1], [1.0, 0.6, 0.2], [0.9, 0.3, 0.0]]),
    )
    files = {
        **found.model.files(),
        "lengths.npz": lengths.to_bytes(),
        "acceptance.npz": AcceptanceModel(3.0, 2.0).to_bytes(),
    }
    return found.manifest, files


def model_with(family: str, changed: dict[str, bytes]) -> dict[str, bytes]:
    """All files of a model of which some hold something else, and a manifest that agrees."""
    manifest, files = model_files(family)
    files = {**files, **changed}
    entries = tuple(
        FileEntry(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in sorted(files.items())
    )
    return {**files, "manifest.json": seal(msgspec.structs.replace(manifest, files=entries))}


def resealed(content: bytes) -> bytes:
    """A manifest's text with the hash that it should have, if it names one at all."""
    try:
        claimed = str(msgspec.json.decode(content, type=dict)["hash"]).encode()
    except (ValueError, KeyError, RecursionError):
        return content
    if len(claimed) != HASH_LENGTH or claimed not in content:
        return content
    head, _, tail = content.rpartition(claimed)
    blank = head + b"0" * HASH_LENGTH + tail
    return head + hashlib.sha256(blank).hexdigest().encode() + tail


def write_log(folder: Path) -> list[Path]:
    """A log of some steps and ends: its files."""
    book = Logbook(folder, 64 << 20, 64, "0.1.0")
    book.start()
    log = book.open(HELLO)
    steps = StepLog()
    for step in range(12):
        feedback = StepFeedback(step, step % 3, 4, 400, step % 2, 0.01, 0, 1)
        told = steps.finished(feedback, Expectation(0.011, 0.013, "linear", 3, "m1"))
        log.step(told, time.monotonic())
        log.end(RequestEnd(step, 5, 100, 20, 64, step % 3, 1.5, 8, 6), time.monotonic())
    book.close()
    return sorted(folder.rglob("*.parquet"))
