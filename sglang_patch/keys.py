"""The keys of a connection over ``tcp://``: the engine's own, and the controller's public one."""

from __future__ import annotations

import struct
from pathlib import Path

from governor_protos.private_file import MAX_SECRET_BYTES, SecretFileError, read_private

from sglang_patch.errors import ConfigurationError


class Keys:
    """Z85-encoded keys. Not a struct, so that printing it shows none."""

    __slots__ = ("controller_public", "secret")

    def __init__(self, secret: bytes, controller_public: bytes) -> None:
        self.secret = secret
        self.controller_public = controller_public


def read_keys(key_file: Path, controller_key_file: Path) -> Keys:
    """
    Raises:
        ConfigurationError: a file cannot be used; names the variable and the remedy. What a file
            holds is never repeated.
    """
    try:
        read_private(key_file, "GOVERNOR_KEY_FILE")
    except SecretFileError as error:
        raise ConfigurationError(str(error)) from None
    _, secret = _read(key_file, "GOVERNOR_KEY_FILE")
    if secret is None or not _is_key(secret):
        raise ConfigurationError(
            f"GOVERNOR_KEY_FILE: {key_file} holds no secret key; name the .key_secret file that "
            "'governor keys' makes"
        )
    public, not_ours = _read(controller_key_file, "GOVERNOR_CONTROLLER_KEY_FILE")
    if not_ours is not None:
        raise ConfigurationError(
            f"GOVERNOR_CONTROLLER_KEY_FILE: {controller_key_file} holds a secret key, which "
            "belongs on the controller's host alone; use controller.key"
        )
    if not _is_key(public):
        raise ConfigurationError(
            f"GOVERNOR_CONTROLLER_KEY_FILE: {controller_key_file} holds no public key; name the "
            "controller.key that 'governor keys' makes"
        )
    return Keys(secret, public)


def _read(path: Path, variable: str) -> tuple[bytes, bytes | None]:
    """The public key and the secret one, if any; the public one is empty if there is none."""
    from zmq.auth import load_certificate  # the simulator reads settings and needs no ZeroMQ

    try:
        if path.stat().st_size > MAX_SECRET_BYTES:
            raise ConfigurationError(f"{variable}: {path} is too large for a key")
        return load_certificate(path)
    except OSError as error:
        reason = error.strerror or "not a file"
        raise ConfigurationError(f"{variable}: cannot read {path}: {reason}") from None
    except (ValueError, IndexError):
        return b"", None


def _is_key(text: bytes) -> bool:
    """Whether ``text`` is 32 bytes in Z85."""
    from zmq.utils import z85

    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, struct.error):
        return False
