"""A loop that has fallen behind comes to the newest snapshot of each engine, in turns."""

from __future__ import annotations

import threading
import time

import pytest
import zmq
from controller_builders import batch, feedback_of, hello_of, snapshot_of
from governor_protos import decode_to_engine, encode
from governor_protos.messages import Decision, Welcome

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.loop_calls import LoopCalls
from controller_service.server import ANSWERS_PER_TURN, FRAMES_PER_TURN, Server, make_router

PATIENCE_MS = 60_000


@pytest.mark.parametrize("engines", [1, 8, 64])
def test_a_backlog_of_many_engines_costs_few_stale_answers(engines):
    steps, rows = 12, batch(2, 3)
    names = [b"engine-%d" % number for number in range(engines)]
    controller = Controller(ControllerConfig())
    with zmq.Context() as context, make_router(context) as router:
        router.bind("inproc://controller")
        sockets = [_connected(context, name) for name in names]
        for step in range(1, steps + 1):
            frame = encode(snapshot_of(rows, step, [feedback_of(step - 1)]))
            for socket in sockets:
                socket.send(frame)
        # The engines are introduced before the loop turns, so that a backlog is all that it finds.
        for name in names:
            welcome = controller.answer(name, hello_of(name.decode()), time.monotonic())
            assert isinstance(decode_to_engine(welcome), Welcome)
        calls = LoopCalls()
        server = Server(controller, router, calls)
        loop = threading.Thread(target=server.run)
        loop.start()
        try:
            answers = [_up_to(socket, steps) for socket in sockets]
        finally:
            server.stop()
            loop.join()
            calls.close()
        for socket in sockets:
            socket.close()
    assert all(told == sorted(set(told)) for told in answers)
    answered = sum(map(len, answers))
    turns = -(-engines * steps // FRAMES_PER_TURN)
    assert answered <= engines + ANSWERS_PER_TURN * turns
    assert controller.stats.superseded == engines * steps - answered
    assert sum(controller.stats.outcomes.counts) == engines * steps  # nothing reported is lost


def test_what_an_engine_asked_before_it_started_anew_is_not_answered():
    controller = Controller(ControllerConfig())
    with zmq.Context() as context, make_router(context) as router:
        router.bind("inproc://controller")
        with _connected(context, b"engine") as socket:
            before, after = snapshot_of(batch(2, 3), 900), snapshot_of(batch(2, 3), 2)
            for message in (before, hello_of("engine"), after):
                socket.send(encode(message))
            controller.answer(b"engine", hello_of("engine"), time.monotonic())
            calls = LoopCalls()
            server = Server(controller, router, calls)
            loop = threading.Thread(target=server.run)
            loop.start()
            try:
                assert isinstance(decode_to_engine(socket.recv()), Welcome)
                assert decode_to_engine(socket.recv()).for_step == 2
            finally:
                server.stop()
                loop.join()
                calls.close()


def _up_to(socket, last):
    """The steps that an engine is answered about, up to the last one that it asked about."""
    told = []
    while last not in told:
        answer = decode_to_engine(socket.recv())
        assert isinstance(answer, Decision)
        told.append(answer.for_step)
    return told


def _connected(context, name):
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, name)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
    socket.connect("inproc://controller")
    return socket
