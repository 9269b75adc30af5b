"""What one peer may send: budgets that refill, memory that is bounded, others who are served."""

from __future__ import annotations

import json
import re
import time

from controller_builders import hello_of
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Welcome
from hypothesis import given
from hypothesis import strategies as st

from controller_service.peer_limits import PeerLimits

LARGE = 1 << 40

arrivals = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b"]),
        st.floats(0, 2, allow_nan=False),
        st.integers(0, 400),
    ),
    max_size=80,
)


@given(arrivals, st.integers(1, 20), st.integers(400, 2000))
def test_no_peer_gets_more_than_its_rate_and_a_seconds_worth(sent, frames_per_s, bytes_per_s):
    limits = PeerLimits(frames_per_s, bytes_per_s, 10)
    now_s, taken = 100.0, {b"a": [], b"b": []}
    for identity, pause_s, size in sent:
        now_s += pause_s
        if limits.exceeded(identity, size, now_s) is None:
            taken[identity].append((now_s, size))
    for mine in taken.values():
        for start, (since_s, _) in enumerate(mine):
            for end in range(start, len(mine)):
                seconds = mine[end][0] - since_s + 1
                assert end - start + 1 <= frames_per_s * seconds + 1e-6
                size = sum(size for _, size in mine[start : end + 1])
                assert size <= bytes_per_s * seconds + 1e-6


@given(arrivals)
def test_a_peer_is_judged_as_if_it_were_alone(sent):
    both, alone = PeerLimits(2, 500, 10), PeerLimits(2, 500, 10)
    now_s = 100.0
    for identity, pause_s, size in sent:
        now_s += pause_s
        verdict = both.exceeded(identity, size, now_s)
        if identity == b"a":
            assert verdict == alone.exceeded(identity, size, now_s)


def test_the_limit_that_is_broken_is_named():
    limits = PeerLimits(2, 100, 10)
    assert [limits.exceeded(b"a", 60, 5.0) for _ in range(3)] == [None, "bytes", "frames"]
    assert limits.exceeded(b"a", 60, 7.0) is None


def test_one_of_many_names_takes_no_more_memory():
    limits = PeerLimits(2, LARGE, 8)
    limits.exceeded(b"engine", 1, 5.0)
    limits.exceeded(b"engine", 1, 5.0)
    for name in range(1000):
        limits.exceeded(b"%d" % name, 1, 5.0)
        assert limits.exceeded(b"engine", 1, 5.0) == "frames"  # heard all along: not forgotten
    assert len(limits) == 8


def throttled(controller, limit: str) -> float:
    text = controller.get("/metrics")[1]
    return float(re.search(rf'governor_throttled_frames_total{{limit="{limit}"}} (\S+)', text)[1])


def until(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, "it does not happen"
        time.sleep(0.02)


def test_a_flooding_peer_is_dropped_and_another_is_served(launch, connect):
    controller = launch("--peer-frames-per-s", "1")
    flood = connect(controller.endpoint, b"flood")
    for _ in range(200):
        flood.send(hello_of("flood"))
    other = connect(controller.endpoint, b"other")
    assert isinstance(other.ask(hello_of("other")), Welcome)
    until(lambda: throttled(controller, "frames") > 100)
    engines = json.loads(controller.get("/v1/status")[1])["engines"]
    assert {shown["engine_id"] for shown in engines} == {"flood", "other"}
    assert throttled(controller, "bytes") == 0
    log = controller.stop()[1]
    assert "peer b'flood' sends more than peer_frames_per_s = 1: dropped" in log


def test_large_frames_count_by_their_size(launch, connect):
    controller = launch("--peer-mb-per-s", "1")
    engine = connect(controller.endpoint)
    for _ in range(20):
        engine.socket.send(b"\0" * MAX_FRAME_BYTES)
    other = connect(controller.endpoint, b"other")
    assert isinstance(other.ask(hello_of("other")), Welcome)
    until(lambda: throttled(controller, "bytes") > 0)
    assert throttled(controller, "frames") == 0


def test_the_largest_frame_of_the_contract_fits_the_smallest_budget():
    assert PeerLimits(1, 1 << 20, 1).exceeded(b"a", MAX_FRAME_BYTES, 5.0) is None
