"""The controller's API of models, as a client sees it."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from governor_bench.processes import get_json, run

FIT_TIMEOUT_S = 300.0
PROMOTE_TIMEOUT_S = 120.0
MAX_REPLY_BYTES = 1 << 20


class FitFailed(RuntimeError):
    """``governor fit`` ended with an error; the message is what it printed."""


def fit(sources: list[Path], model: Path, *arguments: str) -> dict[str, Any]:
    """Run ``governor fit`` as an operator does; its report.

    Raises:
        FitFailed: it ended with an error.
    """
    report = model.with_suffix(".json")
    command = [sys.executable, "-m", "controller_service", "fit", *map(str, sources)]
    command += ["-o", str(model), "--json", str(report), *arguments]
    ended = run(command, FIT_TIMEOUT_S)
    if ended.returncode:
        raise FitFailed(ended.stderr.strip()[-2000:])
    decoded: dict[str, Any] = msgspec.json.decode(report.read_bytes(), type=dict)
    return decoded


def promote(controller_url: str, model: Path, *, force: bool = False) -> tuple[int, dict[str, Any]]:
    """``PUT /v1/model``; the HTTP status and the reply."""
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{controller_url}/v1/model",
        data=msgspec.json.encode({"path": str(model), "force": force}),
        headers={"content-type": "application/json"},
        method="PUT",
    )
    try:
        with urllib.request.urlopen(request, timeout=PROMOTE_TIMEOUT_S) as reply:  # noqa: S310
            return int(reply.status), msgspec.json.decode(reply.read(MAX_REPLY_BYTES), type=dict)
    except urllib.error.HTTPError as error:
        return error.code, msgspec.json.decode(error.read(MAX_REPLY_BYTES), type=dict)


def predicts_by(controller_url: str) -> str:
    """Id of the model of the one engine there is; empty for the online line."""
    (engine,) = get_json(f"{controller_url}/v1/model")["engines"]
    return str(engine["model"] or "")
