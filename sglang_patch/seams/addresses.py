"""Seam: where an engine serves HTTP, and what it is called after that."""

from __future__ import annotations

import os
import sys
from typing import Any

from governor_protos.limits import MAX_TEXT

_VARIABLE = "_GOVERNOR_ENGINE_URL"
"""Tells scheduler processes what only the launcher knows: whether HTTP is served at all."""
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound


def note_address(server_args: Any) -> None:
    """Launcher: note where this engine serves HTTP; nowhere if a program runs it as a library.

    Both have a port in their arguments. Only a server is sure to be alone with its.
    """
    if not _is_called_by_a_server():
        os.environ.pop(_VARIABLE, None)
        return
    host = server_args.host
    host = os.uname().nodename if host in _EVERYWHERE else host
    name = f"[{host}]" if ":" in host else host
    scheme = "https" if server_args.ssl_certfile else "http"
    os.environ[_VARIABLE] = f"{scheme}://{name}:{server_args.port}"


def url() -> str:
    """Where clients reach this engine; empty if it serves no HTTP."""
    return os.environ.get(_VARIABLE, "")[:MAX_TEXT]


def engine_id(configured: str, dp_rank: int) -> str:
    """Name of an engine towards its controller.

    Metrics, logs and models hang on it, so it is the same after a restart: host and port. A program
    that runs an engine as a library has no port of its own; its process id stands for it.
    """
    name = configured
    if not name:
        port = url().rpartition(":")[2]
        name = f"{os.uname().nodename}-{port or os.getppid()}"
    return f"{name}-dp{dp_rank}"


def _is_called_by_a_server() -> bool:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        module = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "launch_server" and module.endswith(".http_server"):
            return True
    return False
