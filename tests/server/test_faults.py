"""Whatever the controller does, every request completes with stock's tokens, and it is counted."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from engines import GovernedEngine, Results, assert_sound_at_idle, run_counted, until
from governor_bench.engine_metrics import GovernorCounters, read_counters
from governor_bench.equality.check import compare
from governor_protos import decode_to_controller, encode
from governor_protos.columns import pack
from governor_protos.messages import Band, Decision, Hello, Role, Snapshot, Welcome

pytestmark = pytest.mark.engine

Reply = Callable[[Snapshot], "list[tuple[float, bytes]]"]
"""What a sick controller answers: (delay in seconds, frame)."""


@contextlib.contextmanager
def sick_controller(engine: GovernedEngine, reply: Reply) -> Iterator[None]:
    """A controller that shakes hands properly and then misbehaves."""
    stop = threading.Event()

    def serve() -> None:
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        path = engine.folder / "controller.sock"
        path.unlink(missing_ok=True)
        router.bind(engine.endpoint)
        due: list[tuple[float, bytes, bytes]] = []
        while not stop.is_set():
            if router.poll(1):
                peer, frame = router.recv_multipart()
                message = decode_to_controller(frame)
                now_s = time.monotonic()
                if isinstance(message, Hello):
                    due.append((now_s, peer, encode(Welcome(1, 0, "sick", "0", "sick", 4096))))
                elif isinstance(message, Snapshot):
                    due += [(now_s + delay_s, peer, out) for delay_s, out in reply(message)]
            now_s = time.monotonic()
            for item in [item for item in due if item[0] <= now_s]:
                due.remove(item)
                router.send_multipart([item[1], item[2]])
        router.close()
        context.term()
        path.unlink(missing_ok=True)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def all_branches_parked(snapshot: Snapshot, for_step: int | None = None) -> bytes:
    ids = np.frombuffer(snapshot.rows.request_id, "<u4")
    roles = np.frombuffer(snapshot.rows.role, "u1")
    step = snapshot.for_step if for_step is None else for_step
    parked = pack("I", ids[roles == Role.OPPORTUNISTIC].tolist())
    return encode(Decision(step, 4, parked, [Band(4096, 1, 0)], "sick", 0, 0, 0, 0))


def late(snapshot: Snapshot) -> list[tuple[float, bytes]]:
    return [(0.06, all_branches_parked(snapshot))]


def garbage(snapshot: Snapshot) -> list[tuple[float, bytes]]:
    frames = [b"", b"\xc1" * 50, all_branches_parked(snapshot)[:-9], encode(snapshot)]
    return [(0.0, frames[snapshot.for_step % 4])]


def from_the_future(snapshot: Snapshot) -> list[tuple[float, bytes]]:
    return [(0.0, all_branches_parked(snapshot, 10**12))]


def everything_parked(snapshot: Snapshot) -> list[tuple[float, bytes]]:
    """Names every row, trunks and pinned ones included, twice over, and some that never were."""
    ids = np.frombuffer(snapshot.rows.request_id, "<u4").tolist()
    parked = pack("I", [*ids, *ids, 4_000_000_000])
    return [(0.0, encode(Decision(snapshot.for_step, 4, parked, [], "sick", 0, 0, 0, 0)))] * 2


@pytest.mark.parametrize(
    ("behaviour", "counted_as"),
    [
        (late, lambda counted: counted.falls["late"] + counted.falls["stale"]),
        (garbage, lambda counted: counted.falls["invalid"]),
        (from_the_future, lambda counted: counted.falls["invalid"]),
        (everything_parked, lambda counted: counted.outcomes["applied"]),
    ],
    ids=["late", "garbage", "from the future", "everything parked"],
)
def test_a_sick_controller(
    normal_engine: GovernedEngine,
    stock: Results,
    behaviour: Reply,
    counted_as: Callable[[GovernorCounters], int],
) -> None:
    with sick_controller(normal_engine, behaviour):
        governed, counted = run_counted(normal_engine.url, penalties=True)
    assert compare(stock, governed) == []
    assert counted_as(counted) > 0
    assert_sound_at_idle(normal_engine.url)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_controller_that_dies_in_mid_run(
    normal_engine: GovernedEngine, stock: Results, number: signal.Signals
) -> None:
    with normal_engine.controller("random:0.5") as controller:
        timer = threading.Timer(1.0, lambda: controller.signal(number))
        timer.start()
        governed, counted = run_counted(normal_engine.url, penalties=True)
        timer.join()
    assert compare(stock, governed) == []
    assert counted.outcomes["applied"] > 0
    fallen = counted.falls["disconnected"] + counted.falls["breaker_open"]
    assert fallen > 0
    assert_sound_at_idle(normal_engine.url)


def test_no_controller_at_all(normal_engine: GovernedEngine, stock: Results) -> None:
    governed, counted = run_counted(normal_engine.url, penalties=True)
    assert compare(stock, governed) == []
    assert counted.parked_row_steps == 0
    assert counted.outcomes["applied"] == 0
    assert counted.falls["disconnected"] + counted.falls["breaker_open"] > 0


def test_decisions_resume_within_two_seconds_of_a_restart(
    normal_engine: GovernedEngine, stock: Results
) -> None:
    """Killed and restarted under load; the engine takes decisions again while the load runs."""
    resumed: list[float] = []

    def kill_and_restart() -> None:
        controller.signal(signal.SIGKILL)
        with normal_engine.controller("random:0.5") as second:
            restarted_s = time.monotonic()  # ready, and the engine has introduced itself
            until(
                lambda: second.status()["engines"][0]["outcomes"]["applied"] > 0,
                "no decision was applied after the restart",
            )
            resumed.append(time.monotonic() - restarted_s)
            done.wait(60)

    done = threading.Event()
    with normal_engine.controller("random:0.5") as controller:
        thread = threading.Timer(0.7, kill_and_restart)
        thread.start()
        governed, _ = run_counted(normal_engine.url, penalties=True)
        done.set()
        thread.join()
    assert compare(stock, governed) == []
    assert resumed
    assert resumed[0] < 2.0
    assert read_counters(normal_engine.url).outcomes["applied"] > 0
