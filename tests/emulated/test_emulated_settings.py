"""Settings of the emulation, its model folder, and a plugin that is inert without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sglang_patch import plugin
from sglang_patch.emulated import runtime
from sglang_patch.emulated.config import EmulationConfig, load
from sglang_patch.emulated.model_folder import ARCHITECTURE, write_model_folder
from sglang_patch.emulated.waiting import DeviceEvent, clock_s, wait_until
from sglang_patch.errors import ConfigurationError


def test_nothing_configured_means_inactive() -> None:
    assert load({"GOVERNOR_ENDPOINT": "embedded"}) == EmulationConfig()
    assert not load({"GOVERNOR_EMULATED_PROFILE": ""}).active


def test_settings_are_read() -> None:
    config = load({"GOVERNOR_EMULATED_PROFILE": "qwen3-32b-h200", "GOVERNOR_EMULATED_SCALE": "2.5"})
    assert config.active
    assert config.scale == 2.5
    assert config.load_profile().kv_tokens == 223_464


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_SCALE": "0"},
            "GOVERNOR_EMULATED_SCALE: expected a number above 0",
        ),
        (
            {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_SCALE": "fast"},
            "_SCALE: .* got .fast.",
        ),
        ({"GOVERNOR_EMULATED_SPEED": "2"}, "GOVERNOR_EMULATED_SPEED is no setting"),
        ({"GOVERNOR_EMULATED_SCALE": "2"}, "GOVERNOR_EMULATED_PROFILE is not"),
        ({"GOVERNOR_EMULATED_NOISE": "0.01"}, "NOISE is set but GOVERNOR_EMULATED_PROFILE is not"),
        (
            {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_NOISE": "0.3"},
            "_NOISE: expected a number from 0 to",
        ),
        (
            {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_NOISE": "-0.1"},
            "_NOISE: expected a number",
        ),
        (
            {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_SEED": "x"},
            "_SEED: expected a whole number",
        ),
        (
            {"GOVERNOR_EMULATED_PROFILE": "x", "GOVERNOR_EMULATED_SHIFT": "100"},
            "GOVERNOR_EMULATED_SHIFT: a shift is STEP:FACTOR",
        ),
    ],
)
def test_bad_settings_are_explained(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load(environ)


def test_an_unknown_profile_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sglang")
    monkeypatch.setenv("GOVERNOR_EMULATED_PROFILE", "abacus")
    with pytest.raises(SystemExit, match=r"GOVERNOR_EMULATED_PROFILE: no profile 'abacus'"):
        plugin.activate()


def test_the_model_does_not_load_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOVERNOR_EMULATED_PROFILE", raising=False)
    runtime.current.cache_clear()
    with pytest.raises(ConfigurationError, match="set GOVERNOR_EMULATED_PROFILE"):
        runtime.current()


def test_unconfigured_activation_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOVERNOR_ENDPOINT", "GOVERNOR_EMULATED_PROFILE", "GOVERNOR_EMULATED_SCALE"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import os, sys; before = dict(os.environ); from sglang_patch.plugin import activate; "
        "activate(); print([n for n in ('sglang', 'torch') if n in sys.modules], "
        "before == dict(os.environ))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] True"


def test_model_folder_names_the_emulated_class(tmp_path: Path) -> None:
    config = msgspec.json.decode((write_model_folder(tmp_path / "m") / "config.json").read_bytes())
    assert config["architectures"] == [ARCHITECTURE]


def test_waiting_is_never_short() -> None:
    for wait_s in (0.0, 5e-5, 0.003):
        end_s = clock_s() + wait_s
        event = DeviceEvent(end_s)
        event.record()
        event.synchronize()
        assert clock_s() >= end_s
        assert event.query()
    assert not DeviceEvent(clock_s() + 3600).query()
    wait_until(clock_s() - 1)
