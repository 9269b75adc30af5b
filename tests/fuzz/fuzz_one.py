"""Fuzz one target in this process: ``fuzz_one.py TARGET [libFuzzer's arguments]``."""

from __future__ import annotations

import functools
import logging
import sys
import warnings

import atheris

with atheris.instrument_imports(
    include=[
        "controller_service",
        "governor_bench.frames",
        "governor_profiles",
        "governor_protos",
        "governor_workloads",
        "sglang_patch",
        "yaml",
    ]
):
    from targets import TARGETS

    from controller_service.policies import registry

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # what is refused is logged, a million times
    warnings.simplefilter("ignore")
    # Installed packages stay as they are, and looking through them takes most of the time.
    registry._third_party = functools.cache(registry._third_party)
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
