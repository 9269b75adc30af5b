"""Finished runs on disk, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from controller_service.learning.distributed import source_hash
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
        self._path = folder / f"outcomes-{source_hash(PACKAGES)}.jsonl"
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
