"""Both directions of the wire, and what stands behind it on either side."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import numpy as np
from fuzz_promises import expect
from fuzz_sources import BytesSource
from governor_bench.frames import drawing
from governor_bench.frames.judge import To, problem_of
from governor_protos import BadFrame, decode_to_controller, decode_to_engine, encode, limits
from governor_protos.messages import Decision, Hello, Snapshot

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.observe.metrics import controller_metrics
from controller_service.observe.status import controller_status, recent_steps
from controller_service.policies.registry import parse_policy
from sglang_patch.apply.branches import park_as_decided, park_by_orders
from sglang_patch.breaker import CircuitBreaker
from sglang_patch.fallback import FallReason
from sglang_patch.link import ControllerLink
from sglang_patch.requests import RequestTerms
from sglang_patch.rows import RowRecord, RowTable

POLICIES = (
    "taper", "taper_plus", "off", "cap:2", "eager", "random:0.5", "taper_plus+turbospec",
    "adaptive_candidates", "draft_tree", "fixed_draft:3", "fixed_chunk:256", "sjf", "las", "fcfs",
    "laps_sd+adaptive_chunk+taper_plus+turbospec", "laps_sd+draft_tree",
)  # fmt: skip
ME = b"engine"


def to_controller(data: bytes) -> None:
    _decoded(data, decode_to_controller, To.CONTROLLER)


def to_engine(data: bytes) -> None:
    _decoded(data, decode_to_engine, To.ENGINE)


def _decoded(frame: bytes, decode: Callable, to: To) -> None:
    """Read as the judge reads it, and the same again once encoded."""
    problem = problem_of(frame, to)
    try:
        message = decode(frame)
    except BadFrame as error:
        nested = "recursion" in str(error)  # the two give up at different depths
        expect(bool(problem) or nested, f"a valid frame is refused: {error}")
        expect(len(str(error)) <= limits.MAX_MESSAGE, "an error as long as what it is about")
        return
    expect(not problem, f"accepted, although {problem}")
    expect(decode(encode(message)) == message, "another message once it is encoded again")


def controller(data: bytes) -> None:
    """Messages of two engines, in any order: answered within the contract, whatever they say."""
    source = BytesSource(data)
    policy, predictor = drawing.choice(source, POLICIES), ("corrected-linear", "linear")
    one = Controller(ControllerConfig(policy=policy, predictor=predictor[source.integer(0, 1)]))
    now_s = 1.0
    while source.left and now_s < 1e5:
        now_s += (0.01, 0.05, 1.0, 70.0)[source.integer(0, 3)]
        identity = (ME, b"other")[source.integer(0, 1)]
        kind = source.integer(0, 7)
        if kind == 0:
            one.set_policy(parse_policy(drawing.choice(source, POLICIES)))
        elif kind == 1:
            _tell(one, identity, source.data(source.integer(0, 400)), now_s)
        elif kind == 2:
            hello = msgspec.structs.replace(drawing.hello(source), protocol_major=1)
            _tell(one, identity, encode(hello), now_s)
        else:
            _tell(one, identity, encode(drawing.to_controller(source)), now_s)
        one.keep_house(now_s)
    msgspec.json.encode(controller_status(one, 1.0, now_s))
    list(controller_metrics(one))
    recent_steps(one, "", 100)


def _tell(one: Controller, identity: bytes, frame: bytes, now_s: float) -> None:
    try:
        message = one.read(frame)
    except BadFrame as error:
        _check_reply(one.refuse_frame("undecodable", error, now_s), None)
        return
    reply = one.answer(identity, message, now_s)
    _check_reply(reply, message)
    if isinstance(message, Snapshot):
        one.answered(identity, 0.001, now_s)
        one.settle(identity, message, now_s)


def _check_reply(reply: bytes | None, asked: object) -> None:
    if reply is None:
        return
    problem = problem_of(reply, To.ENGINE)
    expect(not problem, f"the reply breaks the contract: {problem}")
    decided = decode_to_engine(reply)
    if not isinstance(decided, Decision):
        return
    expect(isinstance(asked, Snapshot) and decided.for_step == asked.for_step, "another step")
    rows, queue = asked.rows, asked.queue
    offered = {
        request
        for request, group, role, flags in zip(
            np.frombuffer(rows.request_id, "<u4").tolist(),
            np.frombuffer(rows.group_id, "<u4").tolist(),
            rows.role,
            rows.flags,
            strict=True,
        )
        if role == 2 and group and not flags
    }
    expect(set(_ids(decided.park)) <= offered, "a row is parked that was not offered")
    expect(set(_ids(decided.retract)) <= set(_ids(rows.request_id)), "retracts a stranger")
    expect(set(_ids(decided.prefill_first)) <= set(_ids(queue.request_id)), "names a stranger")


def _ids(column: bytes) -> list[int]:
    return np.frombuffer(column, "<u4").tolist()


class DeafLink(ControllerLink):
    """An engine's end that is handed its frames."""

    def _connected(self):
        return SimpleNamespace(
            send=lambda frame, flags: None, close=lambda linger: None, recv_multipart=None
        )

    def hear(self, frames: list[bytes], now_s: float) -> None:
        self._receive(frames, now_s)


def link(data: bytes) -> None:
    """Frames of a controller: one that breaks the contract is counted and changes nothing."""
    source = BytesSource(data)
    hello = Hello(1, 0, "e", "i", "0", "0", "m", 1, 0, False, 8, 64, 64, 1, -1, "", [], [])
    end = DeafLink("ipc:///nowhere", hello, CircuitBreaker(3, 0.05))
    step, now_s = 0, 0.0
    snapshot = drawing.snapshot(source)
    while source.left and step < 1000:
        step, now_s = step + 1, now_s + 0.01
        end.ask(msgspec.structs.replace(snapshot, for_step=step), now_s)
        kind = source.integer(0, 3)
        if kind == 0:
            frame = source.data(source.integer(0, 300))
        elif kind == 1:
            frame = encode(drawing.decision(source, step))
        else:
            frame = encode(drawing.to_engine(source))
        frames = [frame] * (1 if source.integer(0, 15) else source.integer(0, 3))
        before, bad = end.decision, end.invalid_replies
        end.hear(frames, now_s)
        if len(frames) != 1 or problem_of(frame, To.ENGINE):
            expect(end.invalid_replies == bad + 1, "a malformed frame is not counted")
            expect(end.decision is before, "a malformed frame is a decision")
        expect(isinstance(end.trouble(), FallReason), "no reason")
        decision = end.decision
        if decision is not None:
            expect(decision.for_step <= step, "a decision that nobody asked for is kept")
            _apply(decision)
    end.close("over")


def _apply(decision: Decision) -> None:
    """Whatever it says, some row runs."""
    table = RowTable()
    for number in range(1, 7):
        record = RowRecord(number, f"r{number}", 1, RequestTerms("g", number == 1, None, None), 0.0)
        table.records.append(record)
        table.flags.append(0)
        table.output_tokens.append(3)
    for parked in (
        park_as_decided(frozenset(_ids(decision.park)), table, table.roles(), 8),
        park_by_orders(decision.orders, table, table.roles(), 8),
    ):
        expect(len(set(parked)) == len(parked) < len(table.records), "nobody runs")
