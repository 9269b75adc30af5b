"""Configuration: sources, precedence, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from sglang_patch.config import EngineConfig, load
from sglang_patch.errors import ConfigurationError


def test_nothing_configured_means_inactive() -> None:
    assert load({}, ["sglang"]) == EngineConfig()
    assert not load({}, []).active


def test_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "governor.yaml"
    file.write_text("endpoint: embedded\nmax_parked_steps: 9\ndefault_tpot_slo_ms: 30\n")
    config = load({"GOVERNOR_CONFIG": str(file), "GOVERNOR_MAX_PARKED_STEPS": "11"}, [])
    assert (config.endpoint, config.max_parked_steps, config.default_tpot_slo_ms) == (
        "embedded",
        11,
        30.0,
    )
    assert config.max_wait_ms == EngineConfig().max_wait_ms


@pytest.mark.parametrize(
    "argv", [["x", "--governor-endpoint", "embedded"], ["x", "--governor-endpoint=embedded"]]
)
def test_flag_wins(argv: list[str]) -> None:
    assert load({"GOVERNOR_ENDPOINT": "ipc:///a"}, argv).endpoint == "embedded"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpont: embedded", "did you mean 'endpoint'"),
        ("max_parked_steps: 0", "max_parked_steps"),
        ("max_parked_steps: many", "max_parked_steps"),
        ("- a\n- b", "keys and values"),
        ("a: [", "not YAML"),
        ("endpoint: " + "x" * 70_000, "larger than"),
    ],
)
def test_bad_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "governor.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load({"GOVERNOR_CONFIG": str(file)}, [])


def test_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"/nowhere/governor\.yaml"):
        load({"GOVERNOR_CONFIG": "/nowhere/governor.yaml"}, [])


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:5", "http://x", "ipc://relative", "taper"])
def test_endpoint_that_cannot_be_used_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="GOVERNOR_ENDPOINT"):
        load({"GOVERNOR_ENDPOINT": endpoint}, [])
