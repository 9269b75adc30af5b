"""``governor check frames``: the judge is independent, mutants are malformed, failures show."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from governor_bench.commands.check import check
from governor_bench.frames import drawing
from governor_bench.frames.check import MOST_GROWTH_MIB, broken
from governor_bench.frames.controller_side import ControllerRun
from governor_bench.frames.engine_side import EngineRun
from governor_bench.frames.judge import To, problem_of
from governor_bench.frames.mutations import KINDS, Mutator
from governor_bench.frames.peers import Asked
from governor_protos import BadFrame, decode_to_controller, decode_to_engine, encode, limits
from governor_protos.messages import Band

DECODE = {To.CONTROLLER: decode_to_controller, To.ENGINE: decode_to_engine}
DRAWN = {To.CONTROLLER: drawing.to_controller, To.ENGINE: drawing.to_engine}


@pytest.mark.parametrize("to", To)
def test_what_is_drawn_is_valid_to_judge_and_decoder(to: To) -> None:
    source = drawing.SeededSource(7)
    for _ in range(400):
        message = DRAWN[to](source)
        frame = encode(message)
        assert problem_of(frame, to) == ""
        assert DECODE[to](frame) == message


@pytest.mark.parametrize("to", To)
def test_the_decoder_refuses_every_mutant(to: To) -> None:
    mutator = Mutator(drawing.SeededSource(8), to)
    kinds = set()
    for _ in range(4000):
        mutant = mutator.next()
        kinds.add(mutant.kind)
        if len(mutant.frames) == 1:
            with pytest.raises(BadFrame):
                DECODE[to](mutant.frames[0])
    assert kinds == set(KINDS)


@pytest.mark.parametrize("to", To)
def test_judge_and_decoder_agree_on_any_change(to: To) -> None:
    """Also on mutations that turn out valid, which the check leaves out."""
    source = drawing.SeededSource(9)
    for number in range(4000):
        frame = encode(DRAWN[to](source))
        harmed = KINDS[("bits flipped", "other value", "spliced")[number % 3]](source, frame)
        assert isinstance(harmed, bytes)
        try:
            DECODE[to](harmed)
        except BadFrame as error:
            assert problem_of(harmed, to), error
        else:
            assert problem_of(harmed, to) == ""


DECISION = drawing.decision(drawing.SeededSource(1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"for_step": limits.MAX_STEP + 1}, "for_step: out of range"),
        ({"lease_steps": 0}, "lease_steps: out of range"),
        ({"park": b"123"}, "park: torn"),
        ({"park": bytes(4 * limits.MAX_ROWS + 4)}, "park: too long"),
        ({"policy": "x" * (limits.MAX_TEXT + 1)}, "policy: too long"),
        ({"slack_s": float("nan")}, "slack_s: not finite"),
        ({"budget_s": -0.5}, "budget_s: out of range"),
        ({"orders": [Band(4, 1, 1), Band(4, 1, 1)]}, "do not ascend"),
        ({"capped": b"1234", "caps": b""}, "caps: not as many"),
    ],
)
def test_the_judge_names_the_rule(change: dict[str, object], says: str) -> None:
    frame = encode(msgspec.structs.replace(DECISION, **change))
    assert says in problem_of(frame, To.ENGINE)


def test_equal_seeds_make_equal_mutants() -> None:
    one, two = (Mutator(drawing.SeededSource(3), To.ENGINE) for _ in range(2))
    assert [one.next() for _ in range(50)] == [two.next() for _ in range(50)]


CONTROLLER = ControllerRun(9, 9, 0, 0, False, 1, 0, 0, {}, 1.0, 1.0, 1.0, Asked(5, 5, 1, 0))
ENGINE = EngineRun(9, 9, 0, False, 3, True, 1, 0, {}, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("controller", "engine", "growth", "promise"),
    [
        ({"crashed": True}, {}, 0.0, "the controller lives"),
        ({"accepted": 1}, {}, 0.0, "the controller refuses"),
        ({"throttled": 1}, {}, 0.0, "every frame was read"),
        ({"healthy": Asked(5, 4, 0, 1)}, {}, 0.0, "the healthy engine"),
        ({"healthy": Asked(0, 0, 0, 0)}, {}, 0.0, "the healthy engine"),
        ({}, {"crashed": True}, 0.0, "the engine's end lives"),
        ({}, {"accepted": 1}, 0.0, "the engine's end refuses"),
        ({}, {"recovered": False}, 0.0, "governed again"),
        ({}, {"cut": 0}, 0.0, "governed again"),
        ({}, {}, MOST_GROWTH_MIB + 1, "the memory"),
    ],
)
def test_a_promise_that_does_not_hold_is_named(
    controller: dict[str, object], engine: dict[str, object], growth: float, promise: str
) -> None:
    assert broken(CONTROLLER, ENGINE, {"controller": 0.0}) == []
    (found,) = broken(
        msgspec.structs.replace(CONTROLLER, **controller),
        msgspec.structs.replace(ENGINE, **engine),
        {"controller": growth},
    )
    assert promise in found


def test_a_small_check_holds(tmp_path: Path) -> None:
    path = tmp_path / "frames.json"
    result = CliRunner().invoke(check, ["frames", "--quick", "--json", str(path)])
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert (report["crashes"], report["accepted_malformed"], report["broken"]) == (0, 0, [])
    for side in ("controller", "engine"):
        assert report[side]["sent"] == report[side]["refused"] > report["frames"]
        assert report[side]["cut"] == 1
