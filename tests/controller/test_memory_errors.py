"""A controller that runs out of memory decides again once it has some."""

from __future__ import annotations

import threading

import zmq
from controller_builders import batch, hello_of, snapshot_of
from controller_process import Engine
from governor_protos.messages import Decision, Welcome

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.endpoint import bind
from controller_service.loop_calls import LoopCalls
from controller_service.server import Server, make_router


def test_a_turn_without_memory_costs_its_decisions_and_no_more(tmp_path, monkeypatch, caplog):
    controller = Controller(ControllerConfig(policy="off"))
    answer, exhausted = controller.answer, threading.Event()
    refused = threading.Event()

    def answer_if_there_is_memory(*args):
        if exhausted.is_set():
            refused.set()
            raise MemoryError
        return answer(*args)

    monkeypatch.setattr(controller, "answer", answer_if_there_is_memory)
    with zmq.Context() as context, make_router(context) as router:
        endpoint = bind(router, f"ipc://{tmp_path}/s")
        server = Server(controller, router, LoopCalls())
        thread = threading.Thread(target=server.run)
        thread.start()
        engine = Engine(endpoint)
        try:
            assert isinstance(engine.ask(hello_of()), Welcome)
            exhausted.set()
            engine.send(snapshot_of(batch(2, 2), 1, []))
            assert refused.wait(60)
            exhausted.clear()
            decision = engine.ask(snapshot_of(batch(2, 2), 2, []))
            assert isinstance(decision, Decision)
            assert decision.for_step == 2  # what was asked for lack of memory is not made up for
        finally:
            engine.close()
            server.stop()
            thread.join()
    assert controller.stats.memory_errors == 1
    assert "out of memory: messages of 1 turns dropped so far" in caplog.text
