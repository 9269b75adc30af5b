"""What a controller loads at its start: nothing heavy that was not asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("lightgbm", "sklearn", "river", "pyarrow", "duckdb", "pandas")

SCRIPT = """
import sys
import controller_service.app
from controller_service.config import ControllerConfig
from controller_service.controller import Controller
Controller(ControllerConfig(predictor={predictor!r}))
print(*sorted({heavy!r} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("predictor", "loaded"),
    [("linear", set()), ("corrected-linear", set()), ("corrected-boosted", {"lightgbm", "river"})],
)
def test_only_what_is_configured_is_loaded(predictor: str, loaded: set[str]) -> None:
    script = SCRIPT.format(predictor=predictor, heavy=set(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    found = set(done.stdout.split())
    assert loaded <= found
    assert loaded or not found
