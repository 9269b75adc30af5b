"""Fuzz one target in this process: ``fuzz_one.py TARGET [libFuzzer's arguments]``."""

from __future__ import annotations

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

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # what is refused is logged, a million times
    warnings.simplefilter("ignore")
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
