"""Configuration: sources, precedence, and errors that help."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.config import EngineConfig, keys_of, load
from sglang_patch.errors import ConfigurationError
from sglang_patch.keys import read_keys


def test_nothing_configured_means_inactive() -> None:
    assert load({}, ["sglang"]) == EngineConfig()
    assert not load({}, []).active


def test_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "governor.yaml"
    file.write_text("endpoint: embedded\nmax_parked_steps: 9\ndefault_tpot_slo_ms: 30\n")
    config = load({"GOVERNOR_CONFIG": str(file), "GOVERNOR_MAX_PARKED_STEPS": "11"}, [])
    assert (config.endpoint, config.max_parked_steps, config.default_tpot_slo_ms) == (
        "embedded",
        11,
        30.0,
    )
    assert config.max_wait_ms == EngineConfig().max_wait_ms


@pytest.mark.parametrize(
    "argv", [["x", "--governor-endpoint", "embedded"], ["x", "--governor-endpoint=embedded"]]
)
def test_flag_wins(argv: list[str]) -> None:
    assert load({"GOVERNOR_ENDPOINT": "ipc:///a"}, argv).endpoint == "embedded"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpont: embedded", "did you mean 'endpoint'"),
        ("max_parked_steps: 0", "GOVERNOR_MAX_PARKED_STEPS: expected a whole number from 1"),
        ("max_parked_steps: many", "GOVERNOR_MAX_PARKED_STEPS: .* got .many."),
        ("- a\n- b", "keys and values"),
        ("a: [", "not YAML"),
        ("endpoint: " + "x" * 70_000, "larger than"),
    ],
)
def test_bad_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "governor.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load({"GOVERNOR_CONFIG": str(file)}, [])


def test_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"/nowhere/governor\.yaml"):
        load({"GOVERNOR_CONFIG": "/nowhere/governor.yaml"}, [])


@pytest.fixture
def key_files(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    zmq.auth.create_certificates(folder, "engine")
    public, _ = zmq.auth.create_certificates(folder, "controller")
    secret = folder / "engine.key_secret"
    secret.chmod(0o600)
    return {"GOVERNOR_KEY_FILE": str(secret), "GOVERNOR_CONTROLLER_KEY_FILE": public}


def secret_in(path: str) -> str:
    _, secret = zmq.auth.load_certificate(path)
    assert secret is not None
    return secret.decode()


def test_tcp_anywhere_with_keys_which_are_never_shown(key_files: dict[str, str]) -> None:
    config = load({"GOVERNOR_ENDPOINT": "tcp://controller.example:9471", **key_files}, [])
    keys = keys_of(config)
    assert keys is not None
    secret = secret_in(key_files["GOVERNOR_KEY_FILE"])
    assert keys.secret.decode() == secret
    assert secret not in repr(config) + repr(keys) + str(keys)


def test_tcp_in_the_clear_only_on_loopback_and_if_allowed() -> None:
    allowed = {"GOVERNOR_ALLOW_PLAIN_TCP": "1"}
    for host in ("127.0.0.1", "localhost", "[::1]"):
        local = {"GOVERNOR_ENDPOINT": f"tcp://{host}:5"}
        assert keys_of(load({**local, **allowed}, [])) is None
        with pytest.raises(ConfigurationError, match="GOVERNOR_ALLOW_PLAIN_TCP=1"):
            load(local, [])
    for host in ("10.0.0.1", "127.0.0.1.example", "*"):
        with pytest.raises(ConfigurationError, match="governor keys") as error:
            load({"GOVERNOR_ENDPOINT": f"tcp://{host}:5", **allowed}, [])
        assert "ALLOW_PLAIN_TCP" not in str(error.value)


@pytest.mark.parametrize("missing", ["GOVERNOR_KEY_FILE", "GOVERNOR_CONTROLLER_KEY_FILE"])
def test_a_missing_key_is_named(key_files: dict[str, str], missing: str) -> None:
    environment = {"GOVERNOR_ENDPOINT": "tcp://10.0.0.1:5", **key_files}
    with pytest.raises(ConfigurationError, match=f"^{missing}: .*go together"):
        load({name: value for name, value in environment.items() if name != missing}, [])
    with pytest.raises(ConfigurationError, match=f"^{missing}: cannot read /nowhere"):
        load({**environment, missing: "/nowhere"}, [])


@pytest.mark.parametrize("endpoint", ["embedded", "ipc:///run/c.sock"])
def test_keys_without_tcp_are_refused(key_files: dict[str, str], endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="keys are for tcp://"):
        load({"GOVERNOR_ENDPOINT": endpoint, **key_files}, [])


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused(key_files: dict[str, str], mode: int) -> None:
    path = key_files["GOVERNOR_KEY_FILE"]
    Path(path).chmod(mode)
    with pytest.raises(ConfigurationError, match=f"^GOVERNOR_KEY_FILE: .*chmod 600 {path}"):
        load({"GOVERNOR_ENDPOINT": "tcp://10.0.0.1:5", **key_files}, [])


def test_keys_in_each_others_place_are_refused(key_files: dict[str, str]) -> None:
    secret, public = key_files.values()
    Path(public).chmod(0o600)
    for one, other, says in ((public, public, "_KEY_FILE: .*no secret"),
                             (secret, secret, "_CONTROLLER_KEY_FILE: .*secret key")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=says):
            load(
                {
                    "GOVERNOR_ENDPOINT": "tcp://10.0.0.1:5",
                    "GOVERNOR_KEY_FILE": one,
                    "GOVERNOR_CONTROLLER_KEY_FILE": other,
                },
                [],
            )


@given(st.binary(max_size=200))
def test_a_damaged_key_is_refused_and_not_repeated(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.mktemp("key") / "a.key_secret"
    path.write_bytes(b'secret-key = "hunter2"\n' + text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="GOVERNOR_KEY_FILE: ") as error:
        read_keys(path, path)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", ["HTTP_TOKEN_FILE", "CONTROLLER_URL", "CLUSTER"])
def test_a_variable_of_the_commands_is_no_typo_of_an_engines_setting(name: str) -> None:
    load({f"GOVERNOR_{name}": "x"}, [])


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:5", "http://x", "ipc://relative", "taper"])
def test_endpoint_that_cannot_be_used_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="GOVERNOR_ENDPOINT"):
        load({"GOVERNOR_ENDPOINT": endpoint}, [])


def test_a_variable_that_cannot_be_used_is_named_with_what_it_may_be() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"^GOVERNOR_DEFAULT_TPOT_SLO_MS: expected a number above 0 and at most 3600000, "
        "got 'abc'$",
    ):
        load({"GOVERNOR_DEFAULT_TPOT_SLO_MS": "abc"}, [])


def test_policy_off_in_a_file_is_the_policy_off(tmp_path: Path) -> None:
    file = tmp_path / "governor.yaml"
    file.write_text("policy: off\nallow_plain_tcp: yes\n")
    config = load({"GOVERNOR_CONFIG": str(file)}, [])
    assert (config.policy, config.allow_plain_tcp) == ("off", True)


def test_a_key_that_a_file_has_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "governor.yaml"
    file.write_text("policy: off\npolicy: cap:2\n")
    with pytest.raises(ConfigurationError, match="line 2: 'policy' is set twice, first in line 1"):
        load({"GOVERNOR_CONFIG": str(file)}, [])


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "CONTROLLER_PORT", "CONTROLLER_SERVICE_PORT_HTTP", "PORT_9470_TCP"]
)
def test_what_kubernetes_sets_for_a_service_is_no_typo(name: str) -> None:
    load({f"GOVERNOR_{name}": "tcp://10.0.0.1:9470"}, [])
