"""The two servers that benches and tests start: a controller, and an engine on the CPU."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from governor_bench.processes import ManagedProcess, free_port, get_json


class Controller(ManagedProcess):
    """A ``governor serve`` process."""

    def __init__(
        self,
        folder: Path,
        *,
        policy: str = "taper",
        predictor: str = "linear",
        http_port: int | None = None,
        log_name: str = "controller.log",
    ) -> None:
        port = http_port or free_port()
        self.endpoint = f"ipc://{folder}/controller.sock"
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [
                *(sys.executable, "-m", "controller_service", "serve"),
                *("--endpoint", self.endpoint),
                *("--policy", policy, "--predictor", predictor),
                *("--http", f"127.0.0.1:{port}"),
            ],
            folder / log_name,
            {"OMP_NUM_THREADS": "1"},
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
        return steps if isinstance(steps, list) else []


class CpuEngine(ManagedProcess):
    """Stock ``sglang.launch_server`` on the reference CPU platform.

    Args:
        folder: for the log.
        model: path of the model.
        governor: ``GOVERNOR_*`` settings without the prefix; empty runs stock SGLang.
        overlap: which scheduler loop.
        arguments: further arguments of the server.
        environment: further variables.
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
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        governed: dict[str, str | None] = {
            name: None for name in os.environ if name.startswith(("GOVERNOR_", "_GOVERNOR_"))
        }
        for name, value in (governor or {}).items():
            governed[f"GOVERNOR_{name}"] = value
        super().__init__(
            [
                *(sys.executable, "-m", "sglang.launch_server"),
                *("--model-path", str(model), "--host", "127.0.0.1", "--port", str(port)),
                *("--device", "cpu", "--attention-backend", "torch_native"),
                *("--dtype", "float32", "--log-level", "info"),
                *(() if "--max-total-tokens" in arguments else ("--max-total-tokens", "32768")),
                *(() if overlap else ("--disable-overlap-schedule",)),
                *arguments,
            ],
            folder / log_name,
            {
                "SGLANG_PLATFORM": "governor_reference_cpu",
                "OMP_NUM_THREADS": "1",
                # Some of SGLang's choices ask torch for CUDA and not the platform.
                "CUDA_VISIBLE_DEVICES": "",
                **governed,
                **(environment or {}),
            },
            f"{self.url}/health",
        )
