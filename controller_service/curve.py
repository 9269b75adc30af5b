"""CURVE on the controller's socket: encrypted, and for engines whose public key is in a folder.

ZeroMQ asks an authenticator, which runs in a thread of its own, about every connection; the loop
around the controller never sees one that was refused.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq
from governor_protos.private_file import MAX_SECRET_BYTES, read_private
from zmq.auth import load_certificate
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from controller_service.config import ControllerConfig
from controller_service.observe.stats import ControllerStats
from controller_service.throttle import Throttle

logger = logging.getLogger(__name__)

DOMAIN = "governor"
LOOK_EVERY_S = 1.0
"""How often the folder of keys is looked through at most, however many connect."""
WARNINGS_PER_S = 1.0

Files = frozenset[tuple[str, int, int]]
"""Name, time of change in ns, and size in bytes of each file."""


class KeyFileError(ValueError):
    """A key cannot be used; names the setting, the file and the remedy."""


@contextmanager
def secured(
    context: zmq.Context[zmq.Socket[bytes]],
    router: zmq.Socket[bytes],
    config: ControllerConfig,
    stats: ControllerStats,
) -> Iterator[None]:
    """Have ``router`` take CURVE connections alone, if keys are configured. Enter before it binds.

    Raises:
        KeyFileError, SecretFileError: a key that cannot be used.
    """
    if not config.key_file:
        yield
        return
    allowed = AllowedEngines(Path(config.engine_keys), stats)
    router.setsockopt(zmq.CURVE_SECRETKEY, read_secret_key(Path(config.key_file)))
    router.setsockopt(zmq.CURVE_SERVER, 1)
    # Without these, ZeroMQ would take any key as long as there is no authenticator.
    router.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    authenticator = ThreadAuthenticator(context)
    authenticator.configure_curve_callback(DOMAIN, allowed)
    authenticator.start()
    try:
        yield
    finally:
        authenticator.stop()


def read_secret_key(path: Path) -> bytes:
    """The secret key in a ``.key_secret`` file, Z85-encoded.

    Raises:
        KeyFileError: it holds none.
        SecretFileError: it cannot be read, or others can read it.
    """
    read_private(path, "key_file")
    secret = _load(path, "key_file")[1]
    if secret is None or not _is_key(secret):
        raise KeyFileError(
            f"key_file: {path} holds no secret key; name the controller.key_secret that "
            "'governor keys' makes"
        )
    return secret


def read_public_key(path: Path) -> bytes:
    """The public key in a ``.key`` file, Z85-encoded.

    Raises:
        KeyFileError: it holds none, or a secret, which has no place here.
    """
    public, secret = _load(path, "engine_keys")
    if secret is not None:
        raise KeyFileError(
            f"engine_keys: {path} holds a secret key, which belongs on the engine's host alone; "
            "put the engine's .key file in its place"
        )
    if not _is_key(public):
        raise KeyFileError(f"engine_keys: {path} holds no public key; remove it")
    return public


def _load(path: Path, setting: str) -> tuple[bytes, bytes | None]:
    """What a key file holds, unchecked; nothing if it is none. No error repeats any of it.

    Raises:
        KeyFileError: it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_SECRET_BYTES:
            raise KeyFileError(f"{setting}: {path} is larger than {MAX_SECRET_BYTES} bytes")
        return load_certificate(path)
    except OSError as error:
        reason = error.strerror or "not a file"
        raise KeyFileError(f"{setting}: cannot read {path}: {reason}") from None
    except IndexError:
        return b"", None  # a line without '='
    except ValueError as error:
        if isinstance(error, KeyFileError):
            raise
        return b"", None  # no public key


class AllowedEngines:
    """The engines that may connect: one ``.key`` file each in a folder.

    The folder is looked through again when an engine connects, so that one can be added or turned
    away while the controller runs. A file that is damaged by then allows nobody.

    Raises:
        KeyFileError: no folder, no key in it, or a file that holds none.
    """

    def __init__(self, folder: Path, stats: ControllerStats) -> None:
        self._folder = folder
        self._stats = stats
        self._warnings = Throttle(WARNINGS_PER_S)
        self._looked_s = time.monotonic()
        try:
            _refuse_if_others_may_add(folder)
            self._files = self._list()
        except OSError as error:
            raise KeyFileError(f"engine_keys: cannot read {folder}: {error.strerror}") from None
        self._keys = {read_public_key(folder / name) for name, _, _ in self._files}
        if not self._keys:
            raise KeyFileError(
                f"engine_keys: no .key file in {folder}, so that no engine could connect; "
                "'governor keys' makes one"
            )

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of a public key may connect. Called by the authenticator's thread.

        Args:
            key: Z85-encoded; ZeroMQ has made sure that the peer has the secret that goes with it.
        """
        self._look(time.monotonic())
        if key in self._keys:
            return True
        self._stats.refused_keys += 1
        if self._warnings.allows(time.monotonic()):
            logger.warning(
                "an engine was refused: no file in %s holds its public key %s",
                self._folder,
                key.decode("ascii", "replace"),
            )
        return False

    def _look(self, now_s: float) -> None:
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            files = self._list()
        except OSError as error:
            logger.warning("engine_keys: cannot read %s: %s", self._folder, error.strerror)
            files = frozenset()
        if files != self._files:
            self._files = files
            self._keys = set(self._readable(files))
            logger.info("engine_keys: %d keys in %s", len(self._keys), self._folder)

    def _readable(self, files: Files) -> Iterator[bytes]:
        for name, _, _ in files:
            try:
                yield read_public_key(self._folder / name)
            except KeyFileError as error:
                logger.warning("%s", error)

    def _list(self) -> Files:
        with os.scandir(self._folder) as entries:
            found = [(entry, entry.stat()) for entry in entries if entry.name.endswith(".key")]
        return frozenset((entry.name, on.st_mtime_ns, on.st_size) for entry, on in found)


def _refuse_if_others_may_add(folder: Path) -> None:
    mode, mounted = folder.stat().st_mode, os.statvfs(folder).f_flag
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mounted & os.ST_RDONLY:
        raise KeyFileError(f"engine_keys: others may add keys to {folder}; chmod go-w {folder}")


def _is_key(text: bytes) -> bool:
    """Whether ``text`` is 32 bytes in Z85."""
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, struct.error):
        return False
