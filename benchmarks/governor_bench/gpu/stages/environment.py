"""What the host has, and what can be imported there."""

from __future__ import annotations

import json
import shutil
import sys

import msgspec

from governor_bench import processes
from governor_bench.envelope import package_versions
from governor_bench.gpu.figures import Environment
from governor_bench.gpu.stage import Context, Stage

MODULES = (
    *("torch", "triton", "sglang", "sgl_kernel", "flashinfer", "transformers", "zmq", "msgspec"),
    *("aiohttp", "uvicorn", "starlette", "scipy", "matplotlib", "sglang.srt.managers.scheduler"),
    *("sglang_patch.plugin", "controller_service.server"),
)
TIMEOUT_S = 120.0
DRIVER_WITHIN_S = 60.0
QUERY = "name,driver_version,memory.total,compute_cap"
# In a process of its own: an import may take the device, or end the interpreter.
PROBE = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        found[name] = "ok"
    except BaseException as error:
        found[name] = " ".join(f"{type(error).__name__}: {error}".split())[:120]
versions = {}
if found.get("torch") == "ok":
    import torch
    versions = {"cuda": torch.version.cuda or "none"}
print("FOUND " + json.dumps([found, versions]))
"""


def run(context: Context) -> Environment:
    """Ask the driver and the interpreter."""
    gpu, driver, memory, capability = _driver()
    imports, versions = _imports()
    return Environment(
        gpu=gpu,
        driver=driver,
        memory_mib=int(memory) if memory.isdigit() else 0,
        compute_capability=capability,
        versions={"python": sys.version.split()[0], **package_versions("triton"), **versions},
        imports=imports,
    )


def _driver() -> tuple[str, str, str, str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "", "", "", ""
    command = [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    answer = processes.run(command, DRIVER_WITHIN_S)
    parts = [part.strip() for part in answer.stdout.partition("\n")[0].split(",")]
    return (parts[0], parts[1], parts[2], parts[3]) if len(parts) == 4 else ("", "", "", "")


def _imports() -> tuple[dict[str, str], dict[str, str]]:
    """
    Raises:
        RuntimeError: the interpreter says nothing.
    """
    command = [sys.executable, "-c", PROBE, *MODULES]
    answer = processes.run(command, TIMEOUT_S)
    for line in answer.stdout.splitlines():
        if line.startswith("FOUND "):
            return msgspec.convert(
                json.loads(line.removeprefix("FOUND ")), tuple[dict[str, str], dict[str, str]]
            )
    raise RuntimeError(
        f"imports end the interpreter with {answer.returncode}: {answer.stderr[-800:]}"
    )


STAGE = Stage("environment", "driver, GPU and versions", lambda sizes: 20.0, (), run)
