"""The controller's settings: one struct, from defaults, a YAML file and the command line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from governor_protos.limits import MAX_LEASE_STEPS, MAX_TEXT
from governor_protos.plain_yaml import NotYaml, is_plain, parse_yaml
from governor_protos.settings import BadSetting, read_settings
from msgspec import Meta

MAX_CONFIG_BYTES = 64 << 10

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


def default_endpoint() -> str:
    """A socket in a directory that is this user's alone."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"ipc://{runtime}/governor/controller.sock"
    return f"ipc:///tmp/governor-{os.getuid()}/controller.sock"


class ConfigError(ValueError):
    """A setting that cannot be used; names the setting and the remedy."""


class ControllerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoint: Text = msgspec.field(default_factory=default_endpoint)
    """Where engines connect: ``ipc://PATH``, or ``tcp://ADDRESS:PORT`` with keys."""
    key_file: Annotated[str, Meta(max_length=4096)] = ""
    """The controller's secret key, for ``tcp://``; made by ``governor keys``."""
    engine_keys: Annotated[str, Meta(max_length=4096)] = ""
    """Folder of the public keys, ``*.key``, of the engines that may connect over ``tcp://``."""
    allow_plain_tcp: bool = False
    """Allow ``tcp://`` without keys, on loopback: any user of this machine can then connect."""
    policy: Text = "taper_plus"
    predictor: Text = "corrected-linear"
    model: Annotated[str, Meta(max_length=4096)] = ""
    """Folder of a model that engines start with; empty: they start with what they learn online."""
    http: Text = "127.0.0.1:9470"
    """``HOST:PORT`` of health, metrics and the API; port 0 takes a free one."""
    http_allow_remote: bool = False
    """Allow ``http`` to listen beyond loopback: health, metrics and status are then open to all."""
    http_token_file: Annotated[str, Meta(max_length=4096)] = ""
    """File of the token without which nothing is changed over HTTP; empty: changes are taken from
    whoever is on loopback, and from nobody if ``http`` listens beyond."""
    http_fallback_any: bool = False
    """Take a free port when the one in ``http`` is taken."""
    exit_with_parent: bool = False
    """End when standard input does."""
    lease_steps: Annotated[int, Meta(ge=1, le=MAX_LEASE_STEPS)] = 4
    """Steps for which a decision's standing orders hold."""
    replan_steps: Annotated[int, Meta(ge=1, le=4096)] = 1
    """Steps for which one plan stands; 1 plans every step."""
    session_expiry_s: Annotated[float, Meta(gt=0, le=86400)] = 60.0
    max_engines: Annotated[int, Meta(ge=1, le=4096)] = 256
    peer_frames_per_s: Annotated[int, Meta(ge=1, le=1_000_000)] = 2000
    """Frames that one engine may send in a second; more are dropped unread."""
    peer_mb_per_s: Annotated[int, Meta(ge=1, le=4096)] = 64
    """MiB that one engine may send in a second; more is dropped unread."""
    log_dir: Annotated[str, Meta(max_length=4096)] = ""
    """Folder of the decision log, on a local disk; empty keeps none."""
    log_max_mb: Annotated[int, Meta(ge=8, le=1 << 20)] = 512
    """Most that the log takes on disk, in MiB; the oldest files are deleted."""
    log_rows: Annotated[int, Meta(ge=16, le=20_000)] = 8192
    """Records that one of the log's four buffers a table holds."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def load_config(
    path: Path | None, overrides: Mapping[str, Any], named: Mapping[str, str] | None = None
) -> ControllerConfig:
    """Defaults, then the file, then ``overrides`` (``None`` means not given).

    Args:
        named: how an override is called where it was given, for errors; by default it is a flag.

    Raises:
        ConfigError: unreadable, too large, not a mapping, an unknown key, a value out of bounds.
    """
    values = _read(path) if path else {}
    given = {key: value for key, value in overrides.items() if value is not None}
    for key in values:
        _check_key(key, f"{path}")

    def spelled(key: str) -> str:
        if key in given or path is None:
            return (named or {}).get(key, f"--{key.replace('_', '-')}")
        return f"{path}: {key}"

    for key in given:
        _check_key(key, "settings")
    values.update(given)
    _check_texts(values, spelled)
    try:
        config = read_settings(values, ControllerConfig, spelled)
    except BadSetting as error:
        raise ConfigError(str(error)) from error
    _check_texts(msgspec.structs.asdict(config), spelled)  # the defaults as well
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        values = parse_yaml(text)
    except NotYaml as error:
        raise ConfigError(f"{path}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings")
    return values


def _check_texts(values: Mapping[str, Any], spelled: Callable[[str], str]) -> None:
    for key, value in values.items():
        if isinstance(value, str) and not is_plain(value):
            raise ConfigError(
                f"{spelled(key)}: {value!r:.80} holds a zero byte or is not UTF-8; "
                "no path and no name can be that"
            )


def _check_key(key: object, where: str) -> None:
    known = ControllerConfig.__struct_fields__
    if key in known:
        return
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
    raise ConfigError(f"{where}: no setting {key!r}; did you mean {near[0]!r}?")
