"""The servers that benches and tests start: a controller, and engines on the CPU or a GPU."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from governor_profiles import load_profile

from governor_bench.processes import ManagedProcess, free_port, get_json
from governor_bench.step_records import by_number
from sglang_patch.emulated.model_folder import write_model_folder


class Controller(ManagedProcess):
    """A ``governor serve`` process.

    Args:
        program: the module to run, with the arguments that make it serve.
        environment: further variables.
    """

    def __init__(
        self,
        folder: Path,
        *,
        policy: str = "taper_plus",
        predictor: str = "corrected-linear",
        http_port: int | None = None,
        arguments: Sequence[str] = (),
        log_name: str = "controller.log",
        program: Sequence[str] = ("controller_service", "serve"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        port = http_port or free_port()
        self.endpoint = f"ipc://{folder}/controller.sock"
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [
                *(sys.executable, "-m", *program),
                *("--endpoint", self.endpoint),
                *("--policy", policy, "--predictor", predictor),
                *("--http", f"127.0.0.1:{port}"),
                *arguments,
            ],
            folder / log_name,
            {"OMP_NUM_THREADS": "1", **_without_ours(), **(environment or {})},
            f"{self.url}/readyz",
        )

    def set_policy(self, name: str) -> None:
        """Switch the policy of all engines.

        Raises:
            urllib.error.HTTPError: the controller does not know the policy.
        """
        request = urllib.request.Request(  # noqa: S310 - our own URL
            f"{self.url}/v1/policy",
            data=msgspec.json.encode({"policy": name}),
            headers={"content-type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310
            pass

    def status(self) -> dict[str, Any]:
        return get_json(f"{self.url}/v1/status")

    def steps(self, last: int = 4096, engine: str = "") -> list[dict[str, Any]]:
        """Records of recent steps, oldest first."""
        query = f"?last={last}" + (f"&engine={engine}" if engine else "")
        steps = get_json(f"{self.url}/v1/steps{query}")["steps"]
        return [by_number(step) for step in steps] if isinstance(steps, list) else []


def _without_ours() -> dict[str, str | None]:
    """Takes Governor's variables out of a server's environment: it gets those of its test alone."""
    return {name: None for name in os.environ if name.startswith(("GOVERNOR_", "_GOVERNOR_"))}


class _Device(NamedTuple):
    """What an engine is told of the device that it runs on."""

    arguments: tuple[str, ...]
    environment: dict[str, str | None]


_REFERENCE_CPU = _Device(
    ("--device", "cpu", "--dtype", "float32", "--attention-backend", "torch_native"),
    {
        "SGLANG_PLATFORM": "governor_reference_cpu",
        "OMP_NUM_THREADS": "1",
        # Some of SGLang's choices ask torch for CUDA and not the platform.
        "CUDA_VISIBLE_DEVICES": "",
    },
)
_CUDA = _Device(
    # Hopper's default attention (fa3) and FlashInfer's sampling come compiled; these two do not.
    (
        *("--device", "cuda", "--dtype", "bfloat16"),
        *("--attention-backend", "triton", "--sampling-backend", "pytorch"),
    ),
    {},
)


class _Engine(ManagedProcess):
    """``sglang.launch_server``; see the classes below."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        governor: Mapping[str, str],
        overlap: bool,
        arguments: Sequence[str],
        environment: Mapping[str, str | None],
        log_name: str,
        device: _Device = _REFERENCE_CPU,
        port: int | None = None,
    ) -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        governed = _without_ours()
        for name, value in governor.items():
            governed[f"GOVERNOR_{name}"] = value
        super().__init__(
            [
                *(sys.executable, "-m", "sglang.launch_server"),
                *("--model-path", str(model), "--host", "127.0.0.1", "--port", str(port)),
                *device.arguments,
                *(() if overlap else ("--disable-overlap-schedule",)),
                *arguments,
            ],
            folder / log_name,
            {**device.environment, **governed, **environment},
            f"{self.url}/health",
        )


class CpuEngine(_Engine):
    """Stock SGLang that computes a small model.

    Args:
        folder: for the log.
        model: path of the model.
        governor: ``GOVERNOR_*`` settings without the prefix; empty runs stock SGLang.
        overlap: which scheduler loop.
        arguments: further arguments of the server.
        environment: further variables.
        port: where it listens; None: any free port.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        governor: Mapping[str, str] | None = None,
        overlap: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        log_name: str = "engine.log",
        port: int | None = None,
    ) -> None:
        super().__init__(
            folder,
            model,
            governor=governor or {},
            overlap=overlap,
            arguments=(
                *("--log-level", "info"),
                *_unless_given(arguments, "--max-total-tokens", "32768"),
                *arguments,
            ),
            environment=environment or {},
            log_name=log_name,
            port=port,
        )


class EmulatedEngine(_Engine):
    """Stock SGLang whose steps last as long as a GPU's would, on token ids.

    Args:
        folder: for the log and the generated model folder.
        profile: name or file of the step-time profile; it also sets the KV capacity.
        scale: every step lasts this many times what the profile says.
        max_running_requests: rows that a batch may hold.
        governor, overlap, arguments, environment: as for :class:`CpuEngine`.

    Raises:
        ProfileError: there is no such profile or its file is wrong.
    """

    def __init__(
        self,
        folder: Path,
        profile: str | Path,
        *,
        scale: float = 1.0,
        governor: Mapping[str, str] | None = None,
        overlap: bool = True,
        max_running_requests: int = 512,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        log_name: str = "emulated-engine.log",
    ) -> None:
        self.profile = load_profile(profile)
        self.scale = scale
        super().__init__(
            folder,
            write_model_folder(folder / "emulated-model"),
            governor={"EMULATED_PROFILE": str(profile), "EMULATED_SCALE": str(scale)}
            | dict(governor or {}),
            overlap=overlap,
            arguments=(
                *("--load-format", "dummy", "--skip-tokenizer-init", "--sleep-on-idle"),
                *("--max-running-requests", str(max_running_requests)),
                *_unless_given(arguments, "--max-total-tokens", str(self.profile.kv_tokens)),
                *_unless_given(arguments, "--log-level", "warning"),
                *arguments,
            ),
            environment={"SGLANG_PLUGINS": "governor", **(environment or {})},
            log_name=log_name,
        )


class CudaEngine(_Engine):
    """Stock SGLang on one GPU: a model's configuration, dummy weights, prompts of token ids.

    Args:
        folder: for the log.
        model: folder with the model's ``config.json``.
        memory_share: of the GPU's memory, for weights and KV.
        graph_rows: batch sizes that get a CUDA graph.
        governor, overlap, arguments, environment: as for :class:`CpuEngine`.
    """

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        memory_share: float,
        graph_rows: Sequence[int],
        governor: Mapping[str, str] | None = None,
        overlap: bool = True,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        log_name: str = "cuda-engine.log",
    ) -> None:
        super().__init__(
            folder,
            model,
            governor=governor or {},
            overlap=overlap,
            arguments=(
                *("--load-format", "dummy", "--skip-tokenizer-init", "--sleep-on-idle"),
                *("--mem-fraction-static", f"{memory_share:g}"),
                *("--cuda-graph-bs-decode", *map(str, graph_rows)),
                *("--cuda-graph-backend-prefill", "disabled"),
                *_unless_given(arguments, "--chunked-prefill-size", "8192"),
                *_unless_given(arguments, "--log-level", "info"),
                *arguments,
            ),
            environment=environment or {},
            log_name=log_name,
            device=_CUDA,
        )


def _unless_given(arguments: Sequence[str], name: str, value: str) -> tuple[str, ...]:
    return () if name in arguments else (name, value)
