"""Of two engines of one name one is governed, the other is told; they share no state."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from controller_builders import batch, feedback_of, hello_of, snapshot_of
from controller_process import PATIENCE_MS, RunningController
from governor_protos import decode_to_engine
from governor_protos.messages import Decision, Goodbye, Hello, Refusal, Snapshot, Welcome

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.sessions import NAME_KEPT_S
from sglang_patch.breaker import CircuitBreaker
from sglang_patch.link import ControllerLink, LinkState

FIRST, SECOND = b"name.first", b"name.second"


def hello(incarnation: str) -> Hello:
    return hello_of("name", incarnation=incarnation)


class Talk:
    """A controller without its socket, at a time that a test sets."""

    def __init__(self) -> None:
        self.controller = Controller(ControllerConfig(policy="taper"))
        self.now_s = 0.0

    def tell(self, identity: bytes, message: Hello | Snapshot | Goodbye) -> object:
        reply = self.controller.answer(identity, message, self.now_s)
        if isinstance(message, Snapshot):
            self.controller.settle(identity, message, self.now_s)
        return None if reply is None else decode_to_engine(reply)

    def ask(self, identity: bytes, step: int) -> object:
        return self.tell(identity, snapshot_of(batch(2, 2), step, [feedback_of(step - 1)]))

    def governed(self) -> dict[str, int]:
        """Steps that were learnt from, by incarnation."""
        return {
            session.hello.incarnation: session.log.steps_seen
            for session, _ in self.controller.sessions
        }


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_the_second_is_refused_and_both_logs_say_what_to_do(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(talk.tell(FIRST, hello("a")), Welcome)
    with caplog.at_level(logging.WARNING):
        refusal = talk.tell(SECOND, hello("b"))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "name_taken"
    for text in (refusal.message, caplog.text):
        assert "name" in text
        assert "GOVERNOR_ENGINE_ID" in text
    assert talk.governed() == {"a": 0}


def test_the_first_loses_nothing_however_often_the_second_asks(talk: Talk) -> None:
    talk.tell(FIRST, hello("a"))
    for step in range(1, 40):
        talk.now_s += 1.0
        assert isinstance(talk.ask(FIRST, step), Decision)
        assert isinstance(talk.tell(SECOND, hello("b")), Refusal)
        assert isinstance(talk.ask(SECOND, 9000 + step), Refusal)
    assert talk.governed() == {"a": 39}


@pytest.mark.parametrize("leaves", ["with a word", "in silence"])
def test_the_second_has_the_name_once_the_first_is_gone(talk: Talk, leaves: str) -> None:
    talk.tell(FIRST, hello("a"))
    talk.ask(FIRST, 1)
    if leaves == "with a word":
        talk.tell(FIRST, Goodbye("done"))
    else:
        talk.now_s += NAME_KEPT_S
    assert isinstance(talk.tell(SECOND, hello("b")), Welcome)
    assert isinstance(talk.ask(SECOND, 1), Decision)
    assert talk.governed() == {"b": 1}


def test_one_that_was_taken_for_gone_is_told_so_and_shares_nothing(talk: Talk) -> None:
    talk.tell(FIRST, hello("a"))
    talk.ask(FIRST, 1)
    talk.now_s += NAME_KEPT_S
    talk.tell(SECOND, hello("b"))
    reply = talk.ask(FIRST, 2)
    assert isinstance(reply, Refusal)
    assert reply.reason == "unknown_engine"
    reply = talk.tell(FIRST, hello("a"))
    assert isinstance(reply, Refusal)
    assert reply.reason == "name_taken"
    assert talk.governed() == {"b": 0}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningController]:
    controller = RunningController(tmp_path / "c.sock", "--policy", "taper")
    yield controller
    if controller.process.poll() is None:
        controller.kill()


class Links:
    """Engines' ends of the socket, polled as idle schedulers do, on a clock that runs fast."""

    def __init__(self, endpoint: str, *incarnations: str) -> None:
        self.all = {
            name: ControllerLink(endpoint, hello(name), CircuitBreaker(16, 0.25))
            for name in incarnations
        }
        self.now_s = 0.0

    def until(self, holds: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + PATIENCE_MS / 1000
        while not holds():
            assert time.monotonic() < deadline_s, self.states()
            self.now_s += 0.05
            for link in self.all.values():
                link.keep_alive(self.now_s)
            time.sleep(0.002)

    def states(self) -> dict[str, LinkState]:
        return {name: link.state for name, link in self.all.items()}

    def in_state(self, state: LinkState) -> list[ControllerLink]:
        return [link for link in self.all.values() if link.state is state]


def test_real_links_of_one_name_never_take_each_others_connection(
    running: RunningController, caplog: pytest.LogCaptureFixture
) -> None:
    links = Links(running.endpoint, "a", "b")
    with caplog.at_level(logging.ERROR):
        links.until(lambda: set(links.states().values()) == {LinkState.READY, LinkState.REFUSED})
    assert "GOVERNOR_ENGINE_ID" in caplog.text
    (first,), (second,) = links.in_state(LinkState.READY), links.in_state(LinkState.REFUSED)
    rows = batch(2, 2)
    for step in range(1, 60):
        links.until(lambda: first.is_asking)
        assert first.ask(snapshot_of(rows, step, [feedback_of(step - 1)]), links.now_s)
        assert not second.ask(snapshot_of(rows, 9000 + step), links.now_s)
        links.until(partial(first.has_fresh, step))
    assert second.decision is None
    status = json.loads(running.get("/v1/status")[1])
    assert [(engine["engine_id"], engine["steps"]) for engine in status["engines"]] == [
        ("name", 59)
    ]
    first.close("done")
    links.all = {name: link for name, link in links.all.items() if link is second}
    links.until(lambda: second.state is LinkState.READY)
    second.close("done")
    _, log = running.stop()
    assert "engine name: refused" in log
