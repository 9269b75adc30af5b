"""The HTTP side's socket and thread."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from pathlib import Path

import uvicorn

from controller_service.config import ControllerConfig
from controller_service.endpoint import is_loopback
from controller_service.http_api import make_app
from controller_service.http_gate import Gate, read_token
from controller_service.server import Server

logger = logging.getLogger(__name__)

CONNECTIONS = 64
STOP_WITHIN_S = 0.3
LOCAL_HOSTS = ["127.0.0.1", "localhost", "::1", "[::1]", "["]
"""Host headers of a loopback API; the last is how Starlette reads ``[::1]:9470``."""


class HttpAddressError(ValueError):
    """The HTTP address cannot be used; names the flag that helps."""


def listen(config: ControllerConfig) -> socket.socket:
    """Take the configured port.

    Raises:
        HttpAddressError: not ``HOST:PORT``, not loopback, or taken.
    """
    host, port = _split(config.http)
    if not is_loopback(host) and not config.http_allow_remote:
        raise HttpAddressError(
            f"--http {config.http}: not a loopback address, and what the API tells is open to all; "
            "use 127.0.0.1, or add --http-allow-remote behind a network policy"
        )
    try:
        return _listen(host, port)
    except UnicodeError as error:
        raise HttpAddressError(f"--http {config.http}: no host has such a name") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise HttpAddressError(f"--http {config.http}: {error.strerror}") from error
        if not config.http_fallback_any:
            raise HttpAddressError(
                f"port {port} is taken: choose another with --http {host}:PORT "
                "(0 takes a free one), or add --http-fallback-any"
            ) from error
    logger.warning("http: port %d is taken, taking a free one", port)
    return _listen(host, 0)


def token_of(config: ControllerConfig) -> bytes:
    """The token that changes need; empty if none is configured.

    Raises:
        SecretFileError: its file cannot be used.
    """
    return read_token(Path(config.http_token_file)) if config.http_token_file else b""


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HttpThread:
    """Serves the API of ``server`` on ``sock`` in a thread of its own."""

    def __init__(self, server: Server, sock: socket.socket, token: bytes) -> None:
        """
        Args:
            token: what changes need; empty: see :class:`Gate`.
        """
        loopback = is_loopback(sock.getsockname()[0])
        hosts = LOCAL_HOSTS if loopback else ["*"]
        gate = Gate(token, loopback=loopback)
        self._sock = sock
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                make_app(server, hosts, gate),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=5,
                server_header=False,
            )
        )
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([sock],), name="governor-http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close at once: there is nothing here that a client could lose."""
        self._uvicorn.should_exit = self._uvicorn.force_exit = True
        self._thread.join(STOP_WITHIN_S)
        self._sock.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise HttpAddressError(f"--http {address}: expected HOST:PORT, such as 127.0.0.1:9470")
    return host.strip("[]"), int(port)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
