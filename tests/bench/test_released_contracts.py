"""Today's frames cut to an earlier contract are the frames that were released then."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from governor_bench.upgrade.contracts import GROWN, MINORS, as_of
from governor_protos import decode_to_controller, decode_to_engine, encode
from governor_protos.messages import Hello, Snapshot

GOLDEN = Path(__file__).parents[1] / "protos" / "golden"
RELEASED = {
    (match[1], int(match[2])): path
    for path in sorted(GOLDEN.iterdir())
    if (match := re.fullmatch(r"(\w+)-1\.(\d+)\.msgpack", path.name))
}


def newest(name: str, minor: int = max(MINORS)) -> bytes:
    """The frame that was in use at contract 1.``minor``."""
    return RELEASED[name, max(m for n, m in RELEASED if n == name and m <= minor)].read_bytes()


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("name", sorted({name for name, _ in RELEASED}))
def test_a_cut_frame_is_the_one_that_was_released(name: str, minor: int) -> None:
    decode = decode_to_controller if name in ("hello", "snapshot") else decode_to_engine
    cut, released = decode(as_of(newest(name), minor)), decode(newest(name, minor))
    if hasattr(cut, "protocol_minor"):
        assert cut.protocol_minor == minor
        # The golden frames of later contracts carry the number of the first.
        released = type(released)(
            **{f: getattr(released, f) for f in released.__struct_fields__}
            | {"protocol_minor": minor}
        )
    assert cut == released
    assert len(encode(cut)) >= len(as_of(newest(name), minor))


def test_everything_that_grew_is_in_a_frame_of_its_version() -> None:
    minors = {minor for grown in GROWN.values() for minor in grown}
    assert minors == {minor for _, minor in RELEASED}
    assert minors == set(MINORS)


def test_knobs_that_came_later_are_left_out() -> None:
    hello = decode_to_controller(newest("hello"))
    assert isinstance(hello, Hello)
    knobs = ["branches", "drafts", "prefill", "retract"]
    fields = {name: getattr(hello, name) for name in hello.__struct_fields__} | {"knobs": knobs}
    frame = encode(Hello(**fields))
    assert [len(decode_to_controller(as_of(frame, minor)).knobs) for minor in MINORS] == [
        *(1, 1, 1, 2, 2, 3, 4, 4, 4)
    ]


def test_a_cut_snapshot_keeps_its_rows() -> None:
    cut = decode_to_controller(as_of(newest("snapshot"), 0))
    assert isinstance(cut, Snapshot)
    assert len(cut.rows) == 3
    assert len(cut.queue) == 0
