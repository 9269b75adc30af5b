"""``governor doctor`` on an engine's real settings: what it finds, and what it does not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq.auth
from governor_bench.doctor import examine
from rich.progress import Progress


@pytest.mark.parametrize(("mode", "ok"), [(0o600, True), (0o644, False)])
def test_keys_are_looked_at_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, ok: bool
) -> None:
    public, _ = zmq.auth.create_certificates(tmp_path, "controller")
    _, key_file = zmq.auth.create_certificates(tmp_path, "engine")
    Path(key_file).chmod(mode)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("GOVERNOR_ENDPOINT", "tcp://controller.example:9471")
    monkeypatch.setenv("GOVERNOR_KEY_FILE", key_file)
    monkeypatch.setenv("GOVERNOR_CONTROLLER_KEY_FILE", public)
    with Progress(disable=True) as progress:
        report = examine("", with_engine=False, progress=progress)
    (hooks,) = [check for check in report["checks"] if check["name"] == "hooks"]
    assert hooks["ok"] is ok
    assert ok or f"GOVERNOR_KEY_FILE: {key_file}" in hooks["detail"]
    _, secret = zmq.auth.load_certificate(key_file)
    assert secret is not None
    assert secret.decode() not in str(report)
