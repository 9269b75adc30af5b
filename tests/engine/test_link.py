"""The engine's end of the wire against a ROUTER that behaves, and one that does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from governor_protos import decode_to_controller, encode
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Decision, Goodbye, Hello, Refusal, Rows, Snapshot, Welcome

from sglang_patch.breaker import BreakerState, CircuitBreaker
from sglang_patch.fallback import FallReason
from sglang_patch.holds import HoldMeter
from sglang_patch.link import KEEP_ALIVE_S, ControllerLink, LinkState

HELLO = Hello(
    1, 0, "engine", "i", "0", "0", "m", 1, 0, False, 8, 64, 64, 1, -1, "", [], ["branches"]
)
WELCOME = Welcome(1, 0, "c", "0", "taper", 4096)


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, Rows(), 0, 0, 0, 0, [], 0)


def decision(step: int) -> Decision:
    return Decision(step, 4, b"", [], "taper", 0, 0, 0, 0)


class FakeController:
    """A ROUTER socket that says what a test tells it to."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.socket.bind(endpoint)
        self.peer = b""

    def receive(self) -> object:
        assert self.socket.poll(5000), "nothing arrived"
        self.peer, frame = self.socket.recv_multipart()
        return decode_to_controller(frame)

    def say(self, frame: bytes) -> None:
        self.socket.send_multipart([self.peer, frame])

    def close(self) -> None:
        self.socket.close()
        self.context.term()


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/c.sock"


@pytest.fixture
def controller(endpoint: str) -> Iterator[FakeController]:
    fake = FakeController(endpoint)
    yield fake
    fake.close()


@pytest.fixture
def link(endpoint: str, controller: FakeController) -> Iterator[ControllerLink]:
    made = ControllerLink(endpoint, HELLO, CircuitBreaker(3, 0.05))
    yield made
    made.close("test over")


def until(link: ControllerLink, holds: Callable[[], bool]) -> None:
    """Poll the link, as a scheduler does, until something holds."""
    deadline_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline_s, f"still {link.state}, {link.breaker.state}"
        link.poll(time.perf_counter())
        time.sleep(0.002)


def introduce(link: ControllerLink, controller: FakeController) -> None:
    deadline_s = time.monotonic() + 10
    while not controller.socket.poll(10):
        assert time.monotonic() < deadline_s
        link.poll(time.perf_counter())
    assert controller.receive() == HELLO
    controller.say(encode(WELCOME))
    until(link, lambda: link.state is LinkState.READY)


def controller_hears_hello(controller: FakeController) -> bool:
    while not isinstance(controller.receive(), Hello):
        pass
    return True


def next_snapshot(controller: FakeController) -> Snapshot:
    message = controller.receive()
    while not isinstance(message, Snapshot):
        message = controller.receive()
    return message


def test_introduces_itself_asks_and_keeps_the_newest_answer(
    link: ControllerLink, controller: FakeController
) -> None:
    assert link.trouble() is FallReason.DISCONNECTED
    assert not link.ask(snapshot(1), 0.0)
    introduce(link, controller)
    assert link.ask(snapshot(5), 0.0)
    assert next_snapshot(controller).for_step == 5
    for step in (4, 5, 3):
        controller.say(encode(decision(step)))
    until(link, lambda: link.has_fresh(5))
    time.sleep(0.05)
    link.poll(time.perf_counter())
    assert link.has_fresh(5)


def test_silence_opens_the_breaker_and_an_answer_closes_it(
    link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    for step in range(1, 6):
        link.ask(snapshot(step), time.perf_counter())
    assert link.breaker.state is BreakerState.OPEN
    assert link.trouble() is FallReason.BREAKER_OPEN
    assert not link.ask(snapshot(9), time.perf_counter())
    until(link, lambda: link.breaker.state is BreakerState.HALF_OPEN)
    assert controller_hears_hello(controller)
    controller.say(encode(WELCOME))
    until(link, lambda: link.is_asking)
    assert link.breaker.state is BreakerState.HALF_OPEN, "a handshake closes no breaker"
    assert link.ask(snapshot(10), time.perf_counter())
    assert not link.ask(snapshot(11), time.perf_counter()), "one question a probe"
    while next_snapshot(controller).for_step != 10:
        pass
    controller.say(encode(decision(10)))
    until(link, lambda: link.breaker.state is BreakerState.CLOSED)


def test_a_controller_that_greets_but_never_decides_is_not_asked_again_and_again(
    link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    step = 0
    deadline_s = time.monotonic() + 0.6
    while time.monotonic() < deadline_s:
        step += 1
        now_s = time.perf_counter()
        link.poll(now_s)
        link.ask(snapshot(step), now_s)
        while controller.socket.poll(0):
            if isinstance(controller.receive(), Hello):
                controller.say(encode(WELCOME))
        time.sleep(0.002)
    assert link.breaker.openings == 1


def test_an_unusable_reply_is_one_miss(link: ControllerLink, controller: FakeController) -> None:
    """The breaker opens at three misses."""
    introduce(link, controller)
    for step in (1, 2):
        link.ask(snapshot(step), time.perf_counter())
        next_snapshot(controller)
        controller.say(b"garbage")
        until(link, lambda step=step: link.invalid_replies == step)  # type: ignore[misc]
    assert link.breaker.state is BreakerState.CLOSED


def test_an_idle_engine_finds_a_controller_that_was_restarted(
    endpoint: str, link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    link.keep_alive(time.perf_counter())
    link.keep_alive(time.perf_counter() + KEEP_ALIVE_S)
    assert controller.receive() == HELLO
    controller.close()
    second = FakeController(endpoint)
    deadline_s = time.monotonic() + 10
    ahead_s = time.perf_counter()
    while not second.socket.poll(20):
        assert time.monotonic() < deadline_s
        ahead_s += KEEP_ALIVE_S
        link.keep_alive(ahead_s)
    assert second.receive() == HELLO
    second.close()


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff" * 40, b"\x00" * 2000, encode(snapshot(1)), encode(decision(10**9))],
    ids=["empty", "noise", "zeros", "wrong direction", "step never asked"],
)
def test_garbage_is_counted_and_never_applied(
    link: ControllerLink, controller: FakeController, frame: bytes
) -> None:
    introduce(link, controller)
    link.ask(snapshot(5), 0.0)
    next_snapshot(controller)
    controller.say(frame)
    until(link, lambda: link.invalid_replies == 1)
    assert link.decision is None
    assert link.trouble() is FallReason.INVALID
    controller.say(encode(decision(5)))
    until(link, lambda: link.has_fresh(5))
    assert link.trouble() is FallReason.NO_REPLY


def test_a_controller_that_forgot_the_engine_is_introduced_again(
    link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    link.ask(snapshot(5), 0.0)
    next_snapshot(controller)
    controller.say(encode(Refusal(1, 0, "unknown_engine", "who?")))
    until(link, lambda: link.state is LinkState.INTRODUCING)
    introduce(link, controller)


def test_an_incompatible_controller_is_refused(
    link: ControllerLink, controller: FakeController, caplog: pytest.LogCaptureFixture
) -> None:
    introduce(link, controller)
    controller.say(encode(Refusal(9, 1, "incompatible_version", "engine 1.0, controller 9.1")))
    until(link, lambda: link.state is LinkState.REFUSED)
    assert link.trouble() is FallReason.REFUSED
    assert "9.1" in caplog.text
    assert "1.0" in caplog.text
    assert not link.ask(snapshot(6), 0.0)


def test_whoever_has_said_nothing_is_not_deaf_for_hearing_nothing(
    link: ControllerLink, controller: FakeController
) -> None:
    """A step may take longer than a connection may stay silent that was asked something."""
    introduce(link, controller)
    link.keep_alive(time.perf_counter() + 60.0)
    assert link.state is LinkState.READY
    assert controller.receive() == HELLO
    link.keep_alive(time.perf_counter() + 120.0)  # nobody has answered that
    assert link.state is LinkState.INTRODUCING


def test_a_frame_above_the_limit_costs_the_connection_and_no_more(
    link: ControllerLink, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ drops a peer that sends one and never tries again by itself."""
    monkeypatch.setattr("sglang_patch.link.RENEW_S", 0.1)
    introduce(link, controller)
    controller.say(bytes(MAX_FRAME_BYTES + 1))
    step = 0

    def lost() -> bool:
        nonlocal step
        step += 1
        link.ask(snapshot(step), time.perf_counter())
        return link.state is LinkState.INTRODUCING

    until(link, lost)
    while controller.socket.poll(0):
        controller.receive()  # what had left before
    introduce(link, controller)


def test_a_controller_that_leaves_and_returns_is_found_again(
    endpoint: str, link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    controller.say(encode(Goodbye("restart")))
    until(link, lambda: link.state is LinkState.INTRODUCING)
    introduce(link, controller)


def test_waiting_is_bounded_and_ends_with_the_answer(
    link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    link.wait(5, 10.0)  # nothing was asked: returns at once, or the test times out
    link.ask(snapshot(5), 0.0)
    link.wait(5, 0.01)
    assert not link.has_fresh(5)
    next_snapshot(controller)
    controller.say(encode(decision(5)))
    link.wait(5, 10.0)
    assert link.has_fresh(5)


def test_nothing_listens_at_all(tmp_path: Path) -> None:
    alone = ControllerLink(f"ipc://{tmp_path}/none.sock", HELLO, CircuitBreaker(3, 0.05))
    for step in range(20):
        alone.poll(float(step))
        alone.ask(snapshot(step), float(step))
        alone.wait(step, 10.0)
    assert alone.trouble() is FallReason.DISCONNECTED
    alone.close("done")


def test_a_controller_that_left_is_not_blamed_for_its_last_words(
    link: ControllerLink, controller: FakeController
) -> None:
    introduce(link, controller)
    link.ask(snapshot(5), 0.0)
    next_snapshot(controller)
    controller.say(b"garbage")
    controller.say(encode(Goodbye("off")))
    until(link, lambda: link.state is LinkState.INTRODUCING)
    assert link.invalid_replies == 1
    assert link.trouble() is FallReason.DISCONNECTED


def test_a_wait_never_asks_for_longer_pauses_than_it_may_take(
    endpoint: str, controller: FakeController
) -> None:
    told: list[tuple[int, float, float]] = []

    class Telling(HoldMeter):
        def end_wait(self, pauses: int, paused_s: float, longest_s: float) -> None:
            told.append((pauses, paused_s, longest_s))

    link = ControllerLink(
        endpoint, HELLO, CircuitBreaker(100, 1.0), holds=Telling(0.01, lambda hold: None)
    )
    until(link, lambda: bool(controller.socket.poll(0)))
    controller.receive()
    controller.say(encode(WELCOME))
    until(link, lambda: link.is_asking)
    for step, longest_s in enumerate((0.0, 1e-6, 6e-5, 1e-3), start=1):
        assert link.ask(snapshot(step), time.perf_counter())
        link.wait(step, longest_s)
    link.wait(4, 1e-3)  # still nothing has come
    link.close("test over")
    assert [longest_s for _, _, longest_s in told] == [0.0, 1e-6, 6e-5, 1e-3, 1e-3]
    assert all(paused_s <= longest_s + 1e-9 for _, paused_s, longest_s in told)
    assert all((pauses > 0) == (longest_s > 0) for pauses, _, longest_s in told)


def test_an_engine_whose_name_another_took_comes_back(
    endpoint: str,
    controller: FakeController,
    link: ControllerLink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ZeroMQ tells neither that a second socket of the same name has replaced the first."""
    monkeypatch.setattr("sglang_patch.link.RENEW_S", 0.3)
    other = ControllerLink(endpoint, HELLO, CircuitBreaker(3, 0.05))

    def greeted(one: ControllerLink) -> bool:
        while controller.socket.poll(0):
            controller.receive()
            controller.say(encode(WELCOME))
        return one.state is LinkState.READY

    until(link, lambda: greeted(link))
    until(other, lambda: greeted(other))
    for step in range(1, 100):  # until it is noticed that nobody answers any more
        if not link.ask(snapshot(step), time.perf_counter()):
            break
    while controller.socket.poll(0):
        controller.socket.recv_multipart()
    until(link, lambda: link.state is LinkState.INTRODUCING)
    until(link, lambda: greeted(link))
    other.close("test over")
