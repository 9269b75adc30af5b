"""Finished runs on disk, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import msgspec

from governor_bench.eval.setting import Outcome, Setting

PACKAGES = (
    "governor_protos",
    "governor_profiles",
    "governor_workloads",
    "governor_sim",
    "governor_bench.eval.predictors",
    "governor_bench.eval.setting",
    "governor_bench.eval.simulated",
    "governor_bench.eval.workloads",
    "controller_service",
    "sglang_patch",
)
"""What an outcome hangs on: a run made with other code is not taken over."""


class OutcomeCache:
    """Outcomes by setting, one JSON line each, in a file named after the code that made them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"outcomes-{_fingerprint()}.jsonl"
        self._known: dict[Setting, Outcome] = {}
        if self._path.exists():
            with self._path.open("rb") as lines:
                for line in lines:
                    self._take(line)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, setting: Setting) -> Outcome | None:
        return self._known.get(setting)

    def add(self, outcome: Outcome) -> None:
        self._known[outcome.setting] = outcome
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(outcome) + b"\n")

    def _take(self, line: bytes) -> None:
        try:
            outcome = msgspec.json.decode(line, type=Outcome)
        except msgspec.DecodeError:
            return  # the last line of a run that was killed
        self._known[outcome.setting] = outcome


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in _sources(package):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(name: str) -> list[Path]:
    """Files of a package, or the one of a module."""
    spec = find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [] if spec.origin is None else [Path(spec.origin)]
    folders = spec.submodule_search_locations
    return sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
