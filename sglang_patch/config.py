"""Configuration of the engine side: environment variables over one YAML file over defaults.

Every field of :class:`EngineConfig` is set by ``GOVERNOR_<FIELD>`` or by its name in the file that
``GOVERNOR_CONFIG`` names. Governor is inert until an endpoint is configured.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from governor_protos.plain_yaml import NotYaml, is_plain, parse_yaml
from governor_protos.settings import BadSetting, is_set_by_kubernetes, read_settings
from msgspec import Meta

from sglang_patch.errors import ConfigurationError
from sglang_patch.keys import Keys, read_keys

PREFIX = "GOVERNOR_"
FLAG = "--governor-endpoint"
EMBEDDED = "embedded"
OF_THE_COMMANDS = ("GOVERNOR_CONTROLLER_URL", "GOVERNOR_HTTP_TOKEN_FILE", "GOVERNOR_CLUSTER")
"""Variables of the ``governor`` command. The first is almost ``GOVERNOR_CONTROLLER_HTTP``."""
LOOPBACK = ("tcp://127.0.0.1:", "tcp://localhost:", "tcp://[::1]:")
MAX_FILE_BYTES = 64 * 1024

_Name = Annotated[str, Meta(max_length=200)]
_Milliseconds = Annotated[float, Meta(gt=0, le=3.6e6)]


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this engine is governed."""

    endpoint: Annotated[str, Meta(max_length=512)] = ""
    """Controller socket: ``ipc://PATH``, ``tcp://HOST:PORT`` with keys, or ``embedded``."""
    key_file: Annotated[str, Meta(max_length=4096)] = ""
    """This engine's secret key, for ``tcp://``; made by ``governor keys``."""
    controller_key_file: Annotated[str, Meta(max_length=4096)] = ""
    """The controller's public key, for ``tcp://``: an engine talks to no other."""
    allow_plain_tcp: bool = False
    """Allow ``tcp://`` without keys, on loopback: whoever listens at the port is believed."""
    engine_id: _Name = ""
    """Name towards the controller; default: host name and port."""
    default_tpot_slo_ms: _Milliseconds = 50.0
    """TPOT promised to requests that name none (TAPER's default)."""
    default_ttft_slo_ms: _Milliseconds | None = None
    """TTFT promised to requests that name none; none by default."""
    max_parked_steps: Annotated[int, Meta(ge=1, le=100_000)] = 64
    """A row that sat out this many steps in a row advances whatever the controller says."""
    max_held_steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024
    """After so many steps in a row that decoded while somebody waited, the next is the engine's own
    choice, whatever the controller says."""
    max_wait_ms: Annotated[float, Meta(ge=0, le=50)] = 2.0
    """Longest wait for a decision before a step of the non-overlapped loop."""
    max_wait_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.05
    """... and as a share of the recent step time, whichever is smaller."""
    breaker_misses: Annotated[int, Meta(ge=1, le=10_000)] = 16
    """Snapshots without an answer after which the engine stops asking and only probes."""
    breaker_probe_ms: _Milliseconds = 250.0
    """Time between probes of a controller that does not answer."""
    check_field_names: bool = True
    """Refuse a request with a field that is almost one of Governor's, or that stands where SGLang
    drops it."""
    max_n: Annotated[int, Meta(ge=1)] | None = None
    """The most samples (``n``) that one request may ask for; as many as SGLang takes by default."""
    policy: _Name = "taper_plus"
    """Policy that an embedded controller starts with."""
    predictor: _Name = "corrected-linear"
    """Step-latency predictor of an embedded controller."""
    controller_http: _Name = "127.0.0.1:9470"
    """HTTP address of an embedded controller (health, metrics, policy switch)."""
    log_dir: Annotated[str, Meta(max_length=4096)] = ""
    """Folder of an embedded controller's decision log; empty keeps none."""
    allow_unknown_sglang: bool = False
    """Run on an SGLang version that the seams were not checked against."""
    allow_untried_device: bool = False
    """Govern speculation on a device on which that was never tried: any but a CPU."""

    @property
    def active(self) -> bool:
        return bool(self.endpoint)


def load(
    environ: Mapping[str, str] | None = None, argv: Sequence[str] | None = None
) -> EngineConfig:
    """Read the configuration of this process.

    Args:
        environ: default ``os.environ``.
        argv: default ``sys.argv``; searched for ``--governor-endpoint``.

    Raises:
        ConfigurationError: naming the setting, what is wrong with it, and the nearest valid name.
    """
    environ = os.environ if environ is None else environ
    argv = sys.argv if argv is None else argv
    values: dict[str, Any] = {}
    if path := environ.get(PREFIX + "CONFIG"):
        values.update(_read_file(Path(path)))
    for name in EngineConfig.__struct_fields__:
        raw = environ.get(PREFIX + name.upper())
        if raw is not None and raw != "":
            values[name] = raw
    _refuse_typos(environ)
    if (flag := _flag_value(argv)) is not None:
        values["endpoint"] = flag
    for name, value in values.items():
        if isinstance(value, str) and not is_plain(value):
            raise ConfigurationError(
                f"{PREFIX}{name.upper()}: {value!r:.80} holds a zero byte or is not UTF-8; no path "
                "and no name can be that"
            )
    try:
        config = read_settings(
            values, EngineConfig, lambda name: PREFIX + name.upper(), strict=False
        )
    except BadSetting as error:
        raise ConfigurationError(str(error)) from error
    if config.active:
        _check_endpoint(config)
    return config


def keys_of(config: EngineConfig) -> Keys | None:
    """The keys of its connection; ``None`` if it needs none.

    Raises:
        ConfigurationError: they cannot be used.
    """
    if not config.key_file:
        return None
    return read_keys(Path(config.key_file), Path(config.controller_key_file))


def _refuse_typos(environ: Mapping[str, str]) -> None:
    """Refuse a variable that is almost one of ours.

    Others with our prefix are left alone: Kubernetes, for one, sets ``GOVERNOR_SERVICE_HOST`` and
    the like for a service of that name.
    """
    known = {PREFIX + name.upper() for name in EngineConfig.__struct_fields__} | {PREFIX + "CONFIG"}
    for name in environ:
        if not name.startswith(PREFIX) or is_set_by_kubernetes(name):
            continue
        if name not in known and name not in OF_THE_COMMANDS:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if near:
                raise ConfigurationError(f"{name} is no setting; did you mean {near[0]}?")


def _flag_value(argv: Sequence[str]) -> str | None:
    for index, word in enumerate(argv):
        if word == FLAG and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(FLAG + "="):
            return word.split("=", 1)[1]
    return None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"GOVERNOR_CONFIG: cannot read {path}: {error.strerror}") from None
    if len(text) > MAX_FILE_BYTES:
        raise ConfigurationError(f"GOVERNOR_CONFIG: {path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        data = parse_yaml(text)
    except NotYaml as error:
        raise ConfigurationError(f"GOVERNOR_CONFIG: {path}: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"GOVERNOR_CONFIG: {path} must hold keys and values")
    for key in data:
        if key not in EngineConfig.__struct_fields__:
            near = difflib.get_close_matches(str(key), EngineConfig.__struct_fields__, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigurationError(f"GOVERNOR_CONFIG: {path}: unknown key {key!r}{hint}")
    return data


def _check_endpoint(config: EngineConfig) -> None:
    endpoint = config.endpoint
    if endpoint.startswith("tcp://"):
        _check_tcp(config)
    elif endpoint == EMBEDDED or endpoint.startswith("ipc:///"):
        if config.key_file or config.controller_key_file:
            raise ConfigurationError(
                f"GOVERNOR_KEY_FILE, GOVERNOR_CONTROLLER_KEY_FILE: keys are for tcp://; leave them "
                f"out, as {endpoint} is guarded by its file's mode"
            )
    else:
        raise ConfigurationError(
            f"GOVERNOR_ENDPOINT: {endpoint!r} is not an endpoint; "
            f"use ipc:///absolute/path, tcp://HOST:PORT with keys, or {EMBEDDED!r}"
        )


def _check_tcp(config: EngineConfig) -> None:
    """
    Raises:
        ConfigurationError: no keys where they are needed, or keys that cannot be used.
    """
    if config.key_file and config.controller_key_file:
        keys_of(config)  # such as cannot be used end the start here, not in the scheduler
        return
    if config.key_file or config.controller_key_file:
        missing = "CONTROLLER_KEY_FILE" if config.key_file else "KEY_FILE"
        raise ConfigurationError(
            f"GOVERNOR_{missing}: GOVERNOR_KEY_FILE and GOVERNOR_CONTROLLER_KEY_FILE go together; "
            "'governor keys FOLDER' makes both"
        )
    loopback = config.endpoint.startswith(LOOPBACK)
    if loopback and config.allow_plain_tcp:
        return
    but = "; on loopback GOVERNOR_ALLOW_PLAIN_TCP=1 allows it in the clear" if loopback else ""
    raise ConfigurationError(
        f"GOVERNOR_ENDPOINT: {config.endpoint!r} needs GOVERNOR_KEY_FILE and "
        f"GOVERNOR_CONTROLLER_KEY_FILE ('governor keys FOLDER' makes them), or use ipc://{but}"
    )
