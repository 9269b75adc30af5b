"""What an engine says that it computes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from governor_profiles import bends
from governor_protos import limits

from sglang_patch.emulated import runtime
from sglang_patch.seams import device


def scheduler(kind: str, runner: object = None) -> Any:
    model_runner = SimpleNamespace(decode_cuda_graph_runner=runner)
    return SimpleNamespace(
        server_args=SimpleNamespace(device=kind),
        tp_worker=SimpleNamespace(model_runner=model_runner),
    )


@pytest.fixture(autouse=True)
def not_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOVERNOR_EMULATED_PROFILE", raising=False)


def test_a_cpu_has_no_graphs() -> None:
    assert device.name(scheduler("cpu")) == "cpu"
    assert device.graph_rows(scheduler("cpu")) == []
    assert device.graph_rows(scheduler("cpu", object())) == [], "a runner without graphs"


def test_captured_sizes_are_those_of_the_runner() -> None:
    runner = SimpleNamespace(capture_bs=[8, 1, 4, 2])
    assert device.graph_rows(scheduler("cuda", runner)) == [1, 2, 4, 8]


def test_any_profile_can_be_told_to_a_controller() -> None:
    assert bends.MAX_GRAPHS == limits.MAX_GRAPHS


def test_a_gpu_is_named_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert device.name(scheduler("cuda")) == "NVIDIA H200"


@pytest.mark.parametrize(("scale", "expected"), [("1", ""), ("3", " x3"), ("2.5", " x2.5")])
def test_an_emulated_device_is_its_profile_and_scale(
    monkeypatch: pytest.MonkeyPatch, scale: str, expected: str
) -> None:
    monkeypatch.setenv("GOVERNOR_EMULATED_PROFILE", "qwen3-32b-h200-bent")
    monkeypatch.setenv("GOVERNOR_EMULATED_SCALE", scale)
    runtime.current.cache_clear()
    assert device.name(scheduler("cpu")) == "emulated:qwen3-32b-h200-bent" + expected
    assert device.graph_rows(scheduler("cpu"))[:5] == [1, 2, 4, 8, 12]
    runtime.current.cache_clear()
