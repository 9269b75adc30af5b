"""``governor doctor``: is everything in place on this machine?"""

from __future__ import annotations

import importlib.util
import sys
import urllib.error
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from rich.progress import Progress

from controller_service.program import governor
from governor_bench.processes import StartFailed, get_json, run

HOOKS_WITHIN_S = 300.0
HOOK_PROBE = """
import json, os
from sglang_patch import config
if not config.load().active:
    os.environ["GOVERNOR_ENDPOINT"] = "ipc:///nonexistent/doctor.sock"
from sglang.srt.plugins import load_plugins
load_plugins()
from sglang_patch.seams import catalogue, hooks
print("HOOKS " + json.dumps({hook.target: hooks.is_applied(hook.target, hook.function)
                             for hook in catalogue.HOOKS}))
"""


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    ok: bool
    detail: str


def examine(controller_url: str, *, with_engine: bool, progress: Progress) -> dict[str, Any]:
    """Examine the installation.

    Args:
        controller_url: HTTP address of a controller that should be running; empty: none expected.
        with_engine: also start a stock and a governed CPU engine and compare their tokens.

    Returns:
        ``ok`` and ``checks`` (each with ``name``, ``ok``, ``detail``).
    """
    checks = [_versions(), _names(), _hooks()]
    if controller_url:
        checks.append(_controller(controller_url))
    if with_engine and all(check.ok for check in checks):
        checks.append(_equality(progress))
    return {
        "ok": all(check.ok for check in checks),
        "checks": [msgspec.to_builtins(check) for check in checks],
    }


def _versions() -> Check:
    found, missing = [], []
    for package in ("sglang-governor", "sglang", "torch", "pyzmq", "msgspec", "lightgbm"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Check(
            "versions",
            False,
            f"missing: {', '.join(missing)}; pip install 'sglang-governor[engine]'",
        )
    return Check("versions", True, ", ".join(found))


def _names() -> Check:
    """A folder called ``kernels`` on the path would shadow the package that SGLang needs."""
    spec = importlib.util.find_spec("kernels")
    ok = spec is not None and spec.origin is not None
    return Check("names", ok, f"'kernels' is {spec.origin if spec else 'absent'}")


def _hooks() -> Check:
    """In a process of its own, as the launcher would load them; it connects to nobody."""
    probe = run([sys.executable, "-c", HOOK_PROBE], HOOKS_WITHIN_S)
    line = next((row for row in probe.stdout.splitlines() if row.startswith("HOOKS ")), None)
    if line is None:
        return Check("hooks", False, (probe.stderr or probe.stdout).strip()[-500:])
    taken: dict[str, bool] = msgspec.json.decode(line[6:], type=dict[str, bool])
    missed = [target for target, ok in taken.items() if not ok]
    if missed:
        return Check("hooks", False, f"did not take: {', '.join(missed)}")
    return Check("hooks", True, f"{len(taken)} of {len(taken)} took")


def _controller(url: str) -> Check:
    try:
        status = get_json(f"{url}/v1/status", timeout_s=3)
    except (urllib.error.URLError, OSError, msgspec.DecodeError) as error:
        return Check(
            "controller", False, f"{url} does not answer ({error}); start one: {governor()} serve"
        )
    engines = status.get("engines")
    count = len(engines) if isinstance(engines, list) else 0
    return Check("controller", True, f"policy {status.get('policy')}, {count} engine(s)")


def _equality(progress: Progress) -> Check:
    from governor_bench.equality.command import check

    try:
        report = check(
            requests=16,
            seed=1,
            loops=["normal"],
            policies=["random:0.5"],
            arguments=(),
            progress=progress,
        )
    except StartFailed as error:
        return Check("equality", False, str(error)[-500:])
    same = report["mismatched"] == 0
    return Check(
        "equality",
        same and report["parked_row_steps"] > 0,
        f"{report['requests']} requests, {report['mismatched']} differ from stock, "
        f"{report['parked_row_steps']} row-steps parked",
    )
