"""What operators and clients write: settings, policies, keys, request fields."""

from __future__ import annotations

import json

import msgspec
from fuzz_promises import check_error, expect, folder, placed
from governor_profiles.variation import Shift
from governor_protos import limits
from governor_protos.private_file import SecretFileError

from controller_service.config import ConfigError, ControllerConfig, load_config
from controller_service.curve import KeyFileError, read_public_key, read_secret_key
from controller_service.endpoint import EndpointError, claimed
from controller_service.http_gate import read_token
from controller_service.policies.registry import UnknownPolicy, parse_policy
from sglang_patch import config as engine_config
from sglang_patch.emulated import config as emulated_config
from sglang_patch.errors import ConfigurationError, RequestFieldError
from sglang_patch.headers import fields_in
from sglang_patch.keys import read_keys
from sglang_patch.placing import check_places
from sglang_patch.requests import terms, validated


def request_fields(data: bytes) -> None:
    """``custom_params`` of one request, as JSON."""
    try:
        params = json.loads(data)
    except (ValueError, RecursionError):
        return
    for n in (1, 4):
        try:
            passed = validated(params, n=n, request_id="r")
        except RequestFieldError as error:
            expect(bool(error.field), "no field is named")
            expect(len(str(error)) < 1000, "an error as long as what it is about")
            continue
        found = terms(passed)
        for value in (found.ttft_slo_s, found.tpot_slo_s):
            expect(value is None or 0 < value <= 3600, f"a target of {value}")
        expect(0 <= found.expected_tokens <= 1 << 20, f"expects {found.expected_tokens}")
        expect(isinstance(found.group, str) and len(found.group) <= 130, "group")


def request_headers(data: bytes) -> None:
    """A request: a route, header lines, and after a blank line its body, as JSON."""
    head, _, body = data.partition(b"\n\n")
    route, *lines = head.split(b"\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(b":") for line in lines)]
    try:
        validated(None, n=1, request_id="r", headers=fields_in(headers))
        check_places(route.decode("latin-1"), json.loads(body))
    except RequestFieldError as error:
        expect(bool(error.field), "no field is named")
        expect(len(str(error)) < 1000, "an error as long as what it is about")
    except (ValueError, RecursionError):
        pass  # no JSON: SGLang refuses it first


def controller_settings(data: bytes) -> None:
    """A configuration file of the controller, and what it says of sockets and secrets."""
    path = placed("controller.yaml", data)
    try:
        config = load_config(path, {})
    except ConfigError as error:
        check_error(error, path)
        return
    again = msgspec.convert(msgspec.to_builtins(config), ControllerConfig)
    expect(again == config, "a value outside its bounds")
    if config.endpoint.startswith("ipc://") and str(folder()) not in config.endpoint:
        return  # its folder would be made
    try:
        with claimed(config):
            pass
    except EndpointError:
        pass


def engine_settings(data: bytes) -> None:
    """A configuration file of the engine; lines after a blank one are environment variables."""
    text, _, variables = data.partition(b"\n\n")
    path = placed("engine.yaml", text)
    environment = {"GOVERNOR_CONFIG": str(path)}
    for line in variables.decode("utf-8", "replace").replace("\0", "").splitlines():
        name, _, value = line.partition("=")
        environment[f"GOVERNOR_{name}"] = value
    environment["GOVERNOR_CONFIG"] = str(path)
    try:
        config = engine_config.load(environment, [])
    except ConfigurationError as error:
        expect("GOVERNOR" in str(error) or "Governor" in str(error), f"names nothing: {error}")
        expect(len(str(error)) < 10_000, "an error as long as what it is about")
        return
    again = msgspec.convert(msgspec.to_builtins(config), engine_config.EngineConfig)
    expect(again == config, "a value outside its bounds")


def emulation_settings(data: bytes) -> None:
    """Environment variables of the emulation, one a line."""
    environment = {}
    for line in data.decode("utf-8", "replace").replace("\0", "").splitlines():
        name, _, value = line.partition("=")
        environment[f"{emulated_config.PREFIX}{name}"] = value
    try:
        config = emulated_config.load(environment)
        config.variation()
    except ConfigurationError as error:
        expect(emulated_config.PREFIX in str(error), f"names nothing: {error}")
    try:
        Shift.parse(data.decode("utf-8", "replace"))
    except ValueError:
        return


def policies(data: bytes) -> None:
    """A policy as an operator writes it."""
    text = data.decode("utf-8", "replace")
    try:
        policy = parse_policy(text)
    except UnknownPolicy as error:
        expect(bool(str(error)), "says nothing")
        return
    expect(len(policy.label) <= limits.MAX_TEXT, "a label that no frame can carry")


def key_files(data: bytes) -> None:
    """Files of keys and of the token, read by either side."""
    path = placed("some.key", data)
    for read in (read_secret_key, read_public_key, read_token, lambda path: read_keys(path, path)):
        try:
            read(path)
        except (KeyFileError, SecretFileError, ConfigurationError) as error:
            check_error(error, path)
