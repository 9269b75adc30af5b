"""Where engines connect: checking the address, and owning a socket file safely.

ZeroMQ unlinks whatever lies at an ``ipc://`` path and binds there, even under a controller that is
alive. So a lock beside the socket decides who owns it, and only then is a stale file replaced.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import zmq

from controller_service.config import ControllerConfig

MAX_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux."""


class EndpointError(ValueError):
    """The endpoint cannot be used; names the remedy."""


@contextmanager
def claimed(config: ControllerConfig) -> Iterator[None]:
    """Own the endpoint for as long as the block runs; the socket must be closed inside it.

    Raises:
        EndpointError: not a supported endpoint, in use, in an unsafe place, or without the keys
            that it needs.
    """
    endpoint = config.endpoint
    _check_keys_are_of_use(config)
    scheme, _, address = endpoint.partition("://")
    if scheme == "ipc":
        with _owned_socket_file(address):
            yield
    elif scheme == "tcp":
        if not config.key_file:
            _check_may_be_plain(address, allowed=config.allow_plain_tcp)
        yield
    else:
        raise EndpointError(f"{endpoint}: use ipc://PATH, or tcp://ADDRESS:PORT with keys")


def bind(router: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind at an endpoint that is claimed.

    Returns:
        The actual endpoint; a port of 0 is replaced by the one that was taken.

    Raises:
        EndpointError: the port is taken, or the file cannot be made.
    """
    mask = os.umask(0o177)  # the socket file is never open to others, not even for a moment
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        raise EndpointError(f"{endpoint}: cannot bind: {error.strerror}") from error
    finally:
        os.umask(mask)
    return router.getsockopt_string(zmq.LAST_ENDPOINT)


@contextmanager
def _owned_socket_file(address: str) -> Iterator[None]:
    path = Path(address)
    if not path.is_absolute():
        raise EndpointError(f"ipc://{address}: the path must be absolute (ipc:///run/...)")
    if len(os.fsencode(address)) > MAX_PATH_BYTES:
        raise EndpointError(f"{address}: longer than {MAX_PATH_BYTES} bytes; shorten the path")
    _prepare_directory(path.parent)
    with _locked(path.with_name(path.name + ".lock"), address):
        if path.is_symlink() or (path.exists() and not path.is_socket()):
            raise EndpointError(f"{path}: exists and is not a socket; choose another path")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _prepare_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise EndpointError(f"{directory}: cannot be made: {error.strerror}") from error
    if status.st_uid not in (os.getuid(), 0):
        raise EndpointError(f"{directory}: belongs to another user; choose another directory")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise EndpointError(f"{directory}: anyone may replace files in it; chmod o-w {directory}")


@contextmanager
def _locked(path: Path, address: str) -> Iterator[None]:
    with _open_lock(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = lock.read(32).strip() or "unknown"
            raise EndpointError(
                f"ipc://{address}: a controller is alive there (pid {owner}); "
                "stop it, or choose another --endpoint"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        # NOTE: the lock file stays behind. Removing it would let two controllers lock two files.
        yield


def _open_lock(path: Path) -> TextIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.fdopen(os.open(path, flags, 0o600), "r+", encoding="ascii", errors="replace")
    except OSError as error:
        raise EndpointError(f"{path}: cannot be opened: {error.strerror}") from error


def _check_keys_are_of_use(config: ControllerConfig) -> None:
    if bool(config.key_file) != bool(config.engine_keys):
        missing = "engine_keys" if config.key_file else "key_file"
        raise EndpointError(
            f"{missing}: key_file and engine_keys go together; 'governor keys FOLDER' makes both"
        )
    if config.key_file and not config.endpoint.startswith("tcp://"):
        raise EndpointError(
            f"key_file: {config.endpoint} is guarded by its file's mode and takes no keys; leave "
            "out key_file and engine_keys, or use tcp://ADDRESS:PORT"
        )


def _check_may_be_plain(address: str, *, allowed: bool) -> None:
    host = address.rpartition(":")[0].strip("[]")
    if is_loopback(host) and allowed:
        return
    but = "; on loopback allow_plain_tcp allows it in the clear" if is_loopback(host) else ""
    raise EndpointError(
        f"tcp://{address}: needs key_file and engine_keys ('governor keys FOLDER' makes them), "
        f"or use ipc://PATH{but}"
    )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
