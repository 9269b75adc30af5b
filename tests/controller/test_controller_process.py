"""``governor serve`` as a process: its socket, its HTTP side, its life and death."""

from __future__ import annotations

import contextlib
import json
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
import zmq
from click.testing import CliRunner
from controller_builders import batch, extra, feedback_of, hello_of, rows_of, snapshot_of, trunk
from controller_process import PATIENCE_MS
from governor_protos import decode_to_engine, encode
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Decision, Goodbye, Refusal, Welcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller_service.cli import main

ROWS = batch(4, 4)


def decide(engine, step, **facts):
    return engine.ask(snapshot_of(ROWS, step, [feedback_of(step - 1, **facts)]))


def test_serves_an_engine_and_tells_about_it(launch, connect):
    controller = launch("--policy", "off")
    engine = connect(controller.endpoint)
    assert engine.ask(hello_of()).policy == "off"
    for step in range(1, 51):
        decision = decide(engine, step, rows=step % 9 + 1)
        assert (decision.for_step, decision.policy) == (step, "off")
    assert controller.get("/healthz") == (200, '{"status":"ok"}')
    assert controller.get("/readyz")[0] == 200
    status = json.loads(controller.get("/v1/status")[1])
    (shown,) = status["engines"]
    assert status["policy"] == "off"
    assert (shown["engine_id"], shown["steps"], shown["rows"]) == ("engine-1", 50, 16)
    assert shown["predictor"]["fitted"]
    assert shown["turnaround_us"]["p99"] > 0
    metrics = controller.get("/metrics")[1]
    assert 'governor_decisions_total{policy="off"} 50.0' in metrics
    assert "governor_turnaround_seconds_count 50.0" in metrics
    code, steps = controller.get("/v1/steps?engine=engine-1&last=3")
    assert {step["kind"] for step in json.loads(steps)["steps"]} == {"decode"}
    assert {step["outcome"] for step in json.loads(steps)["steps"]} == {"applied"}
    assert [step["step"] for step in json.loads(steps)["steps"]] == [47, 48, 49]
    assert (code, controller.get("/v1/steps?engine=x")[0]) == (200, 404)
    for bad in ("0", "-1", "4097", "many", "9" * 50):
        assert controller.get(f"/v1/steps?engine=engine-1&last={bad}")[0] == 400


def test_the_socket_is_private_and_goes_with_the_controller(launch, socket_path):
    controller = launch()
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    assert controller.stop()[0] == 0
    assert not socket_path.exists()


def test_a_second_controller_is_refused_and_the_first_lives_on(launch, connect):
    first = launch()
    second = launch()
    code, log = second.wait()
    assert (code, second.ready_line) == (1, "")
    assert f"a controller is alive there (pid {first.process.pid})" in log
    assert isinstance(connect(first.endpoint).ask(hello_of()), Welcome)


def test_a_dead_controllers_socket_is_replaced(launch, connect, socket_path):
    launch().kill()
    assert socket_path.is_socket()
    assert isinstance(connect(launch().endpoint).ask(hello_of()), Welcome)


def test_a_file_that_is_no_socket_is_left_alone(launch, socket_path):
    socket_path.parent.mkdir(mode=0o700)
    socket_path.write_text("precious")
    code, log = launch().wait()
    assert code == 1
    assert "not a socket" in log
    assert socket_path.read_text() == "precious"


def test_the_policy_is_switched_while_snapshots_flow(launch, connect):
    controller = launch("--policy", "eager")
    engine = connect(controller.endpoint)
    engine.ask(hello_of())
    switched = threading.Event()
    answers = []

    def switch():
        answers.append(controller.put("/v1/policy", b'{"policy": "cap:2"}'))
        switched.set()

    step, seen = 0, []
    thread = threading.Thread(target=switch)
    while not (switched.is_set() and seen[-1] == "cap:2"):
        step += 1
        if step == 20:
            thread.start()
        decision = decide(engine, step)
        assert decision.for_step == step
        seen.append(decision.policy)
    thread.join()
    ((code, answer),) = answers
    assert (code, answer["policy"], answer["previous"]) == (200, "cap:2", "eager")
    assert list(dict.fromkeys(seen)) == ["eager", "cap:2"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b'{"policy": "tapir"}', 400, "policy"),
        (b'{"policy": 3}', 400, "body"),
        (b'{"policy": "taper", "more": 1}', 400, "body"),
        (b"[" * 5000, 400, "body"),
        (b"\xff", 400, "body"),
        (b"", 400, "body"),
        (b" " * 70_000, 413, "body"),
    ],
)
def test_bad_requests_are_answered(shared, body, status, field):
    code, answer = shared.put("/v1/policy", body)
    assert (code, answer["error"]["field"]) == (status, field)
    assert answer["error"]["message"]


@pytest.mark.parametrize(
    ("path", "status", "field", "says"),
    [
        ("/v1/polices", 404, "path", "there are /healthz, /metrics"),
        ("/v1/steps?lst=3", 400, "lst", "did you mean 'last'?"),
        ("/v1/steps?last=3&last=4", 400, "last", "2 times"),
        ("/v1/steps?last=0", 400, "last", "from 1 to"),
        ("/v1/status?engine=a", 400, "engine", "leave it out"),
    ],
)
def test_what_is_asked_wrongly_is_answered_in_json(shared, path, status, field, says):
    code, text = shared.get(path)
    error = json.loads(text)["error"]
    assert (code, error["field"], says in error["message"]) == (status, field, True)


def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_does(shared):
    request = urllib.request.Request(f"{shared.http}/v1/policy", method="DELETE")
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    with error.value as answer:
        assert (answer.code, answer.headers["allow"]) == (405, "GET, HEAD, PUT")
        problem = json.loads(answer.read())["error"]
    assert (problem["field"], "it takes GET, HEAD, PUT" in problem["message"]) == ("method", True)


def test_the_api_lists_policies_with_what_can_be_set(shared):
    code, text = shared.get("/v1/policies")
    listed = {one["name"]: one for one in json.loads(text)["policies"]}
    assert code == 200
    assert listed["cap"]["decides"] == "branches"
    (width,) = listed["cap"]["settings"]
    assert (width["name"], width["default"]) == ("width", None)
    assert width["may_be"] == "a whole number from 1 to 4096"
    assert "Rows of one branching request" in width["meaning"]


def test_a_part_of_a_policy_that_an_engine_cannot_carry_out_is_said_everywhere(launch, connect):
    controller = launch("--policy", "off")
    connect(controller.endpoint).ask(hello_of())
    for _ in range(2):
        _, answer = controller.put("/v1/policy", b'{"policy": "cap:2+turbospec"}')
    expected = {
        "engine": "engine-1",
        "policy": "turbospec",
        "knob": "drafts",
        "why": "the engine does not speculate",
    }
    assert answer["unmet"] == [expected]
    assert json.loads(controller.get("/v1/policy")[1])["unmet"] == [expected]
    (engine,) = json.loads(controller.get("/v1/status")[1])["engines"]
    assert [one["policy"] for one in engine["unmet"]] == ["turbospec"]
    shown = CliRunner().invoke(main, ["status", "--controller", controller.http]).output
    assert "turbospec does nothing here: the engine does not speculate" in shown
    _, log = controller.stop()
    assert log.count("turbospec does nothing there (the engine does not speculate)") == 1


def test_a_page_from_elsewhere_cannot_reach_the_api(shared):
    request = f"GET /v1/status HTTP/1.1\r\nHost: evil.example:{port_of(shared)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port_of(shared))) as connection:
        connection.sendall(request.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_restart_and_resume(launch, connect):
    launch_first = launch()
    engine = connect(launch_first.endpoint)
    engine.ask(hello_of())
    assert isinstance(decide(engine, 1), Decision)
    launch_first.kill()
    launch()
    # What is sent before the reconnection may be lost, as in a real engine; it tries again.
    engine.socket.setsockopt(zmq.RCVTIMEO, 200)
    reply, step = None, 2
    while reply is None:
        with contextlib.suppress(zmq.Again):
            reply = decide(engine, step)
        step += 1
    assert isinstance(reply, Refusal)
    assert reply.reason == "unknown_engine"
    engine.send(hello_of())
    while not isinstance(reply, Welcome):
        reply = engine.receive()
    while not isinstance(reply, Decision):
        reply = decide(engine, step)


def test_goodbye_on_sigterm(launch, connect):
    controller = launch()
    engine = connect(controller.endpoint)
    engine.ask(hello_of())
    assert controller.stop()[0] == 0
    assert isinstance(engine.receive(), Goodbye)


def test_ends_with_its_parent(launch, socket_path):
    controller = launch("--exit-with-parent")
    assert controller.process.poll() is None
    controller.process.stdin.close()
    controller.process.stdin = None
    assert controller.wait()[0] == 0
    assert not socket_path.exists()


STUCK = """
import time
from controller_service import app

class Stuck:
    def stop(self):
        pass

app.STOP_WITHIN_S = 0.1
app._stop_at_end_of_input(Stuck())
time.sleep(600)
"""


def test_ends_with_its_parent_even_if_its_loop_is_stuck():
    done = subprocess.run(
        [sys.executable, "-c", STUCK],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_MS / 1000,
        check=False,
    )
    assert done.returncode == 1
    assert "did not stop within 0.1 s after its launcher ended" in done.stderr


def test_outlives_its_input_otherwise(launch):
    controller = launch()
    controller.process.stdin.close()
    controller.process.stdin = None
    assert controller.get("/readyz")[0] == 200


def test_a_taken_port_is_named(launch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, log = launch("--http", f"127.0.0.1:{port}").wait()
        assert code == 1
        assert f"port {port} is taken" in log
        assert "--http-fallback-any" in log
        other = launch("--http", f"127.0.0.1:{port}", "--http-fallback-any")
        assert port_of(other) != port
        assert f"port {port} is taken" in other.stop()[1]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--http", "0.0.0.0:0"), "--http-allow-remote"),
        (("--http", "nowhere"), "HOST:PORT"),
        (("--endpoint", "tcp://0.0.0.0:5555"), "governor keys"),
        (("--endpoint", "udp://x"), "use ipc://PATH"),
        (("--endpoint", "ipc://relative"), "absolute"),
        (("--endpoint", "ipc:///" + "x" * 150), "107 bytes"),
        (("--policy", "tapir"), "choose one of"),
        (("--lease-steps", "0"), "--lease-steps: expected a whole number from 1 to 64"),
        (("--log-level", "loud"), "--log-level: expected one of debug, error, info, warning"),
    ],
)
def test_unusable_flags_are_explained(launch, flags, says):
    code, log = launch(*flags).wait()
    assert code == 1
    assert says in log
    assert len(log.strip().splitlines()) == 1


def test_the_variables_of_an_engine_set_up_its_controller_too(launch, tmp_path):
    controller = launch(GOVERNOR_POLICY="cap:3", GOVERNOR_LOG_DIR=str(tmp_path / "log"))
    status = json.loads(controller.get("/v1/status")[1])
    assert (status["policy"], status["log"]["folder"]) == ("cap:3", str(tmp_path / "log"))


def test_a_flag_wins_over_a_variable(launch):
    controller = launch("--policy", "eager", GOVERNOR_POLICY="cap:3")
    assert json.loads(controller.get("/v1/status")[1])["policy"] == "eager"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"GOVERNOR_POLICY": "tapir"}, "choose one of"),
        ({"GOVERNOR_POLICY": "x" * 300}, "GOVERNOR_POLICY: expected a text of 1 to 256"),
        ({"GOVERNOR_HTTP_TOKEN_FILE": "/nowhere"}, "http_token_file: cannot read /nowhere"),
    ],
)
def test_a_variable_that_cannot_be_used_is_explained(launch, variables, says):
    code, log = launch(**variables).wait()
    assert (code, says in log) == (1, True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One controller for tests that leave it as it was."""
    import tempfile
    from pathlib import Path

    from controller_process import RunningController

    with tempfile.TemporaryDirectory(prefix="gov-") as directory:
        controller = RunningController(Path(directory) / "c.sock")
        yield controller
        controller.kill()


def port_of(controller):
    return int(controller.http.rpartition(":")[2])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_garbage_never_ends_the_loop(shared, connect, frames):
    engine = connect(shared.endpoint, b"garbage")
    engine.socket.send_multipart(frames)
    assert shared.process.poll() is None
    assert isinstance(ask_until_welcome(engine), Welcome)
    engine.close()


def ask_until_welcome(engine):
    """Refusals of the garbage before it may come first."""
    engine.send(hello_of("garbage"))
    while True:
        reply = engine.receive()
        if isinstance(reply, Welcome):
            return reply


def test_an_oversized_frame_costs_its_sender_the_connection_alone(shared, connect):
    engine = connect(shared.endpoint, b"large")
    engine.socket.send(b"x" * (MAX_FRAME_BYTES + 1))
    other = connect(shared.endpoint, b"other")
    assert isinstance(other.ask(hello_of("other")), Welcome)


def test_only_the_newest_snapshot_is_answered(launch, connect):
    """Many snapshots sent at once are answered in order, the last one surely."""
    controller = launch("--policy", "off")
    engine = connect(controller.endpoint)
    engine.ask(hello_of())
    rows = rows_of([trunk(1), extra(1)])
    for step in range(1, 201):
        engine.socket.send(encode(snapshot_of(rows, step, [feedback_of(step - 1)])))
    answered = [decode_to_engine(engine.socket.recv()).for_step]
    while answered[-1] != 200:
        answered.append(engine.receive().for_step)
    assert answered == sorted(set(answered))
    (shown,) = json.loads(controller.get("/v1/status")[1])["engines"]
    assert shown["steps"] == 200
    superseded = f"governor_superseded_snapshots_total {200.0 - len(answered)}"
    assert superseded in controller.get("/metrics")[1]
