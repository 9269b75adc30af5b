"""``tcp://`` with keys: who gets in, who does not, and what a start without them says."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import time
from pathlib import Path

import pytest
import zmq
import zmq.auth
import zmq.utils.monitor
from click.testing import CliRunner
from controller_builders import batch, feedback_of, hello_of, snapshot_of
from controller_process import Engine, RunningController
from governor_protos import encode
from governor_protos.messages import Decision, Welcome
from governor_protos.private_file import SecretFileError
from hypothesis import given
from hypothesis import strategies as st

from controller_service.cli import main
from controller_service.curve import AllowedEngines, KeyFileError, read_secret_key
from controller_service.observe.stats import ControllerStats
from sglang_patch.breaker import CircuitBreaker
from sglang_patch.keys import read_keys
from sglang_patch.link import ControllerLink, LinkState


def make_keys(folder: Path, *flags: str):
    return CliRunner().invoke(main, ["keys", str(folder), *flags])


@pytest.fixture
def folder(tmp_path) -> Path:
    made = make_keys(tmp_path / "keys")
    assert made.exit_code == 0, made.output
    return tmp_path / "keys"


@pytest.fixture
def start(launch, folder):
    """A controller with keys on a free port."""

    def started(*flags: str) -> RunningController:
        controller = launch(
            *("--endpoint", "tcp://127.0.0.1:0"),
            *("--key-file", str(folder / "controller.key_secret")),
            *("--engine-keys", str(folder / "engines"), *flags),
        )
        found = re.search(r"tcp://\S+:\d+", controller.ready_line)
        if found:
            controller.endpoint = found[0]
        return controller

    return started


class KeyedEngine(Engine):
    """An engine's end with keys of its choice."""

    def __init__(self, endpoint: str, identity: bytes, secret: bytes, server: bytes) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, identity)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 60_000)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(secret))
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, server)
        self.socket.connect(endpoint)


@pytest.fixture
def connect_with(folder):
    engines = []

    def connected(controller, name: str, secret: bytes | None = None, server: bytes | None = None):
        mine = secret or zmq.auth.load_certificate(folder / f"{name}.key_secret")[1]
        theirs = server or zmq.auth.load_certificate(folder / "controller.key")[0]
        engines.append(KeyedEngine(controller.endpoint, name.encode(), mine, theirs))
        return engines[-1]

    yield connected
    for engine in engines:
        engine.close()


def until(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, "it does not happen"
        time.sleep(0.02)


def served(controller) -> set[str]:
    engines = json.loads(controller.get("/v1/status")[1])["engines"]
    return {shown["engine_id"] for shown in engines}


def refused(controller) -> float:
    metrics = controller.get("/metrics")[1]
    return float(re.search(r"^governor_refused_keys_total (\S+)$", metrics, re.MULTILINE)[1])


def secrets_in(folder: Path) -> list[str]:
    return [zmq.auth.load_certificate(path)[1].decode() for path in folder.glob("**/*.key_secret")]


def test_the_right_keys_get_in_and_nobody_else_does(start, connect, connect_with, folder):
    controller = start("--policy", "off", "--log-level", "debug")
    engine = connect_with(controller, "engine")
    assert isinstance(engine.ask(hello_of("engine")), Welcome)

    plain = connect(controller.endpoint, b"plain")
    unknown = connect_with(controller, "unknown", secret=zmq.curve_keypair()[1])
    misled = connect_with(controller, "engine", server=zmq.curve_keypair()[0])
    for intruder, name in ((plain, "plain"), (unknown, "unknown"), (misled, "misled")):
        # Who has been refused by now has no connection left, and would wait for one for ever.
        with contextlib.suppress(zmq.Again):
            intruder.socket.send(encode(hello_of(name)), zmq.DONTWAIT)
    until(lambda: refused(controller) > 0)  # the one whose key is unknown has been judged

    rows = batch(4, 4)
    for step in range(1, 51):  # others are not disturbed
        decision = engine.ask(snapshot_of(rows, step, [feedback_of(step - 1)]))
        assert isinstance(decision, Decision)
    assert served(controller) == {"engine"}
    for intruder in (plain, unknown, misled):
        assert not intruder.socket.poll(0)

    # Neither tells any of its secrets, even to who debugs it.
    told = [controller.get(path)[1] for path in ("/v1/status", "/metrics")]
    told.append(controller.stop()[1])
    assert "an engine was refused" in told[-1]
    for secret in secrets_in(folder):
        assert not [text for text in told if secret in text]


def linked(controller, folder: Path, name: str) -> ControllerLink:
    keys = read_keys(folder / f"{name}.key_secret", folder / "controller.key")
    return ControllerLink(controller.endpoint, hello_of(name), CircuitBreaker(3, 0.05), keys)


def is_ready(link: ControllerLink) -> bool:
    link.poll(time.perf_counter())
    return link.state is LinkState.READY


def test_engines_are_let_in_and_turned_away_while_the_controller_runs(
    start, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("sglang_patch.link.RENEW_S", 0.3)
    controller = start()
    make_keys(folder, "--add-engine", "second")
    public, away = folder / "engines" / "second.key", tmp_path / "second.key"
    public.rename(away)
    link = linked(controller, folder, "second")
    until(lambda: not is_ready(link) and refused(controller) > 0)
    away.rename(public)
    until(lambda: is_ready(link))  # ZeroMQ itself would never have tried again
    link.close("turned away")

    public.rename(away)
    (folder / "engines" / "damaged.key").write_text("curve\n    public-key\n")
    time.sleep(1.1)  # the folder is looked at once a second
    before = refused(controller)
    again = linked(controller, folder, "second")
    until(lambda: not is_ready(again) and refused(controller) > before)
    again.close("test over")
    first = linked(controller, folder, "engine")
    until(lambda: is_ready(first))
    assert "engine" in served(controller)
    first.close("test over")


def test_a_link_does_not_speak_to_an_impostor(folder):
    """Whoever took the controller's port has not its key, and is told nothing."""
    impostor = zmq.Context.instance().socket(zmq.ROUTER)
    impostor.setsockopt(zmq.LINGER, 0)
    _, secret = zmq.curve_keypair()
    impostor.setsockopt(zmq.CURVE_SECRETKEY, secret)
    impostor.setsockopt(zmq.CURVE_SERVER, 1)
    monitor = impostor.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_SUCCEEDED
    )
    port = impostor.bind_to_random_port("tcp://127.0.0.1")
    keys = read_keys(folder / "engine.key_secret", folder / "controller.key")
    endpoint = f"tcp://127.0.0.1:{port}"
    link = ControllerLink(endpoint, hello_of("linked"), CircuitBreaker(3, 0.05), keys)

    def judged() -> bool:
        link.poll(time.perf_counter())
        return bool(monitor.poll(20))

    until(judged)
    assert zmq.utils.monitor.recv_monitor_message(monitor)["event"] == (
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    )
    assert link.state is LinkState.INTRODUCING
    assert not impostor.poll(0)
    link.close("test over")
    impostor.disable_monitor()
    impostor.close()


def test_keys_are_private_and_never_printed(tmp_path):
    folder = tmp_path / "new" / "keys"
    made = make_keys(folder)
    secrets = secrets_in(folder)
    assert len(secrets) == 2
    assert not [secret for secret in secrets if secret in made.output]
    for path in (folder, folder / "engines"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in folder.glob("*.key_secret"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [
        *("controller.key", "controller.key_secret", "engine.key_secret", "engines")
    ]
    for name in ("controller.key", "engines/engine.key"):
        public, secret = zmq.auth.load_certificate(folder / name)
        assert secret is None
        assert public.decode() in made.output


def test_keys_are_replaced_only_by_force(folder):
    before = secrets_in(folder)
    again = make_keys(folder)
    assert (again.exit_code, "--force" in again.output) == (1, True)
    assert secrets_in(folder) == before
    assert make_keys(folder, "--add-engine", "engine").exit_code == 1
    assert make_keys(folder, "--add-engine", "other").exit_code == 0
    assert set(before) < set(secrets_in(folder))
    assert make_keys(folder, "--force").exit_code == 0
    assert not set(before) & set(secrets_in(folder))


@pytest.mark.parametrize("name", ["controller", "", "a/b", "..", "x" * 65, "ä"])
def test_an_engine_has_a_plain_name(folder, name):
    made = make_keys(folder, "--add-engine", name)
    assert (made.exit_code, "--add-engine" in made.output) == (1, True)


def test_keys_are_not_put_where_others_look(tmp_path):
    tmp_path.chmod(0o755)
    made = make_keys(tmp_path)
    assert (made.exit_code, f"chmod 700 {tmp_path}" in made.output) == (1, True)
    assert list(tmp_path.iterdir()) == []
    alone = make_keys(tmp_path / "none", "--add-engine", "a")
    assert (alone.exit_code, "leave out --add-engine" in alone.output) == (1, True)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--endpoint", "tcp://0.0.0.0:0"), "needs key_file and engine_keys"),
        (("--endpoint", "tcp://0.0.0.0:0", "--allow-plain-tcp"), "needs key_file and engine_keys"),
        (("--endpoint", "tcp://127.0.0.1:0"), "allow_plain_tcp"),
        (("--endpoint", "tcp://127.0.0.1:0", "--key-file", "k"), "engine_keys: .*go together"),
        (("--endpoint", "tcp://127.0.0.1:0", "--engine-keys", "k"), "key_file: .*go together"),
        (("--key-file", "k", "--engine-keys", "k"), "takes no keys"),
    ],
)
def test_a_start_without_the_keys_that_it_needs_is_explained(launch, flags, says):
    code, log = launch(*flags).wait()
    assert (code, len(log.strip().splitlines())) == (1, 1)
    assert re.search(says, log)


def test_unusable_keys_end_the_start_and_are_not_repeated(start, folder):
    secret = secrets_in(folder)[0]
    key_file = folder / "controller.key_secret"
    key_file.chmod(0o640)
    code, log = start().wait()
    assert (code, "chmod 600" in log, secret in log) == (1, True, False)
    key_file.chmod(0o600)
    key_file.write_text(f'curve\n    public-key = "x"\n    secret-key = "{secret[:-1]}"\n')
    code, log = start().wait()
    assert (code, "holds no secret key" in log, secret[:-1] in log) == (1, True, False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no public key"),
        ("curve\n    public-key\n", "holds no public key"),
        ('    public-key = "' + "~" * 40 + '"', "holds no public key"),
        ('    public-key = "' + "#" * 40 + '"', "holds no public key"),
        ("x" * 20_000, "larger than"),
    ],
)
def test_a_damaged_public_key_is_named_at_the_start(folder, text, says):
    (folder / "engines" / "odd.key").write_text(text)
    with pytest.raises(KeyFileError, match=f"engine_keys: .*odd.key.*{says}"):
        AllowedEngines(folder / "engines", ControllerStats())


def test_folders_of_keys_that_cannot_be_trusted_are_refused(folder, tmp_path):
    def problem(path: Path) -> str:
        with pytest.raises(KeyFileError) as error:
            AllowedEngines(path, ControllerStats())
        return str(error.value)

    assert "No such file" in problem(tmp_path / "none")
    engines = folder / "engines"
    engines.chmod(0o770)
    assert f"chmod go-w {engines}" in problem(engines)
    engines.chmod(0o755)
    assert AllowedEngines(engines, ControllerStats())
    (engines / "mine.key").write_bytes((folder / "engine.key_secret").read_bytes())
    assert "holds a secret key" in problem(engines)
    for path in engines.iterdir():
        path.unlink()
    assert "no .key file" in problem(engines)


@given(st.binary(max_size=200))
def test_whatever_a_key_file_holds_it_is_a_key_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("key") / "a.key_secret"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises((KeyFileError, SecretFileError), match="key_file: "):
        read_secret_key(path)


def test_plain_tcp_on_loopback_if_it_is_allowed(launch, connect):
    controller = launch("--endpoint", "tcp://127.0.0.1:0", "--allow-plain-tcp")
    endpoint = controller.ready_line.split(" at ")[1].split(",")[0]
    assert isinstance(connect(endpoint).ask(hello_of()), Welcome)
