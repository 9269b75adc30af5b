"""``check upgrade``: the router in front of the engines, and what counts as a broken promise."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fake_generate_server import serving
from governor_bench.commands.upgrade import faults
from governor_bench.load.spec import RequestSpec
from governor_bench.upgrade import fleet as fleet_module
from governor_bench.upgrade.fleet import Fleet

SPEC = RequestSpec(0, 0.0, (5, 6, 7), max_new_tokens=4)


def test_requests_go_to_whoever_has_the_fewest() -> None:
    with serving() as first, serving() as second:
        first.step_s = second.step_s = 0.01
        fleet = Fleet({"first": first.url, "second": second.url})
        with fleet.serving([SPEC]) as results:
            time.sleep(0.5)
    assert results
    assert not any(result.error for result in results)
    assert len(results) == len(first.bodies) + len(second.bodies)
    assert first.most_in_flight == second.most_in_flight == fleet_module.USERS // 2


def test_an_engine_that_is_taken_out_is_left_in_peace_once_it_is_done() -> None:
    with serving() as first, serving() as second:
        first.step_s = second.step_s = 0.02
        fleet = Fleet({"first": first.url, "second": second.url})
        with fleet.serving([SPEC]) as results:
            time.sleep(0.2)
            fleet.take_out("first")
            assert first.in_flight == 0
            seen = len(first.bodies)
            time.sleep(0.2)
            assert len(first.bodies) == seen
            fleet.put_in("first", first.url)
            time.sleep(0.2)
        assert len(first.bodies) > seen
    assert not any(result.error for result in results)


def test_taking_out_an_engine_that_does_not_finish_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "DRAIN_S", 0.1)
    with serving() as slow:
        slow.step_s = 0.2
        fleet = Fleet({"slow": slow.url})
        sending = threading.Thread(target=fleet.send, args=(SPEC,))
        sending.start()
        time.sleep(0.1)
        with pytest.raises(TimeoutError, match="slow is not done"):
            fleet.take_out("slow")
        sending.join()


SOUND = {
    "lost_requests": 0,
    "token_mismatches": 0,
    "stages": [{"stage": "contract 1.0", "requests": 5, "silent": False}],
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"lost_requests": 2}, "2 requests lost"),
        ({"token_mismatches": 1}, "1 outputs differ"),
        ({"stages": [{"stage": "a", "requests": 5, "silent": True}]}, "a: an engine got no"),
        ({"stages": [{"stage": "b", "requests": 0}]}, "b: nobody was served"),
        ({"stages": [{"stage": "c", "requests": 1, "resumed_s": 31.0}]}, "c: no decisions within"),
    ],
)
def test_every_promise_can_be_broken(change: dict[str, Any], fault: str) -> None:
    assert faults(SOUND) == []
    (found,) = faults(SOUND | change)
    assert fault in found
