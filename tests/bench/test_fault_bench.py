"""The fault bench: it does what it says, and a broken promise is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import psutil
import pytest
from governor_bench.faults.clock import WallClock
from governor_bench.faults.judge import Verdict
from governor_bench.faults.kinds import Faults, Kind
from governor_bench.faults.lies import Lies
from governor_bench.faults.process_limits import without_disk, without_memory
from governor_bench.faults.schedule import FRAME_KINDS, MIXES
from governor_bench.faults.tampering import Outgoing, Tampering
from governor_bench.faults.workload import emulated_answers, emulated_requests
from governor_protos import decode_to_controller, decode_to_engine, encode
from governor_protos.codec import BadFrame
from governor_protos.columns import ROW_COLUMNS, pack
from governor_protos.messages import Band, Decision, Queue, Rows, Snapshot
from hypothesis import given
from hypothesis import strategies as st

IDS = [3, 4, 5]
SNAPSHOT = Snapshot(
    77,
    Rows(**{name: pack(code, IDS) for name, code in ROW_COLUMNS.items()}),
    *(5, 100, 0, 0),
    [],
    0,
    queue=Queue(),
)
DECISION = Decision(77, 4, pack("I", IDS[:1]), [Band(9, 1, 0)], "taper", 0.1, 0.1, 0.1, 0.0)


def sent(tampering: Tampering, frames: list[bytes]) -> tuple[list[Outgoing], list[Kind]]:
    """What leaves, in order, and all faults that were done."""
    left: list[Outgoing] = []
    done: list[Kind] = []
    for frame in frames:
        out, kind = tampering.treat(frame)
        left += out
        done += [] if kind is None else [kind]
    return left, done + [item.kind for item in left if item.kind is not None]


def numbered(count: int) -> list[bytes]:
    """Decisions that differ in two places, so that no turned bit makes one of another."""
    return [
        encode(Decision(step, 4, b"", [], f"policy {step}", 0, 0, 0, 0)) for step in range(count)
    ]


@given(seed=st.integers(0, 2**32), mix=st.sampled_from(sorted(MIXES)))
def test_a_fault_that_is_counted_has_changed_what_leaves(seed: int, mix: str) -> None:
    lies = Lies()
    lies.to_controller(encode(SNAPSHOT), Random(1))
    frames = numbered(120)
    left, done = sent(Tampering(MIXES[mix], lies.to_engine, Random(seed)), frames)
    unharmed = [item for item in left if item.kind is None and not item.after_s]
    assert len(done) >= len(frames) - len(unharmed) - 1  # one may still wait to be passed
    for item in left:
        if item.kind in (Kind.FRAME_TRUNCATE, Kind.FRAME_FLIP, Kind.FRAME_LIE):
            assert item.frame not in frames
        elif item.kind is Kind.FRAME_DELAY:
            assert item.after_s > 0
        else:
            assert item.frame in frames


@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_each_kind_does_what_its_name_says(kind: Kind) -> None:
    frames = numbered(60)
    lies = Lies()
    left, done = sent(Tampering({kind: 0.5}, lies.to_engine, Random(3)), frames)
    assert set(done) == {kind}
    order = [item.frame for item in left]
    if kind is Kind.FRAME_DROP:
        assert len(order) == 60 - len(done)
    elif kind is Kind.FRAME_DUPLICATE:
        assert len(order) > 60
        assert set(order) == set(frames)
    elif kind is Kind.FRAME_REORDER:
        assert order != frames
        assert len(set(order)) >= 59
    elif kind is Kind.FRAME_REPLAY:
        old = [item for at, item in enumerate(left) if item.kind is kind]
        assert all(frames.index(item.frame) + 8 <= order.index(item.frame) + 60 for item in old)
        assert len(set(order)) < 60


def test_the_same_seed_is_the_same_schedule() -> None:
    frames = numbered(200)
    runs = [
        sent(Tampering(MIXES["heavy"], Lies().to_engine, Random(seed)), frames)
        for seed in (5, 5, 6)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@given(seed=st.integers(0, 2**32))
def test_lies_are_well_formed_or_refused_whole_and_never_the_truth(seed: int) -> None:
    rng = Random(seed)
    lies = Lies()
    truth = encode(SNAPSHOT)
    told = lies.to_controller(truth, rng)
    assert told is not None
    decode_to_controller(told)
    answer = lies.to_engine(encode(DECISION), rng)
    assert answer is not None
    try:
        decode_to_engine(answer)
    except BadFrame as error:
        assert "lease" in str(error) or "[2]" in str(error)  # longer than a lease may be
    assert lies.to_engine(b"torn", rng) is None


def test_a_broken_promise_is_seen(tmp_path: Path) -> None:
    specs = emulated_requests(12, 1, 1.0)
    expected = emulated_answers(specs)
    verdict = Verdict()
    verdict.judge_answers(expected, emulated_answers(specs))
    assert not any(verdict.broken().values())
    whole = [spec.index for spec in specs if spec.abort_after_s is None]
    got = emulated_answers(specs)
    got[whole[0]].error = "connection reset"
    got[whole[1]].branches[0].output_ids = got[whole[1]].branches[0].output_ids[:-3]
    wrong = got[whole[2]].branches[0]
    wrong.output_ids = [*wrong.output_ids[:5], 0, *wrong.output_ids[6:]]
    verdict.judge_answers(expected, got)
    log = tmp_path / "x.log"
    log.write_text("fine\nTraceback (most recent call last):\n  File\nKeyError: 1\n")
    verdict.judge_logs([log])
    assert verdict.broken() == {
        "lost_requests": 2,
        "token_mismatches": 1,
        "leaked_pages": 0,
        "engine_stalls": 0,
        "unhandled": 1,
    }
    assert any("KeyError" in example for example in verdict.examples)


def test_an_aborted_request_is_neither_lost_nor_short() -> None:
    (spec,) = emulated_requests(1, 3, 1.0)[:1]
    spec = replace(spec, index=0, abort_after_s=0.1, n=1)
    expected, got = emulated_answers([spec]), emulated_answers([spec])
    got[0].branches[0].output_ids = got[0].branches[0].output_ids[:4]
    got[0].error = "aborted"
    verdict = Verdict()
    verdict.judge_answers(expected, got)
    assert not any(verdict.broken().values())


def test_counts_name_every_kind() -> None:
    faults = Faults()
    faults.add(Kind.FRAME_DROP, 3)
    assert faults.total == 3
    assert set(faults.counts()) == {kind.value for kind in Kind}


SLEEPER = "import sys,time\nfor line in sys.stdin:\n    exec(line)\n    print('done', flush=True)\n"


@pytest.fixture
def child() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdin=-1, stdout=-1, stderr=-1, text=True
    )
    yield process
    process.kill()
    process.communicate()


def run_in(child: subprocess.Popen[str], line: str) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def test_memory_is_taken_from_a_live_process_and_given_back(child: subprocess.Popen[str]) -> None:
    run_in(child, "1")
    grab = "try: x = bytearray(1 << 28)\nexcept MemoryError: print('refused', flush=True)"
    with without_memory(child.pid, 1 << 20):
        assert run_in(child, f"exec({grab!r})") == "refused"
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "done"
    assert run_in(child, "x = bytearray(1 << 28)") == "done"
    assert psutil.Process(child.pid).memory_info().vms > 1 << 28


def test_a_disk_is_full_for_a_live_process_and_then_is_not(
    child: subprocess.Popen[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    write = (
        f"try: open({str(file)!r}, 'wb', 0).write(b'x' * 5000); "
        f"open({str(file)!r}, 'ab', 0).write(b'x' * 5000)\n"
        "except OSError: print('full', flush=True)"
    )
    run_in(child, "1")
    with without_disk(child.pid, 4096):
        assert run_in(child, f"exec({write!r})") == "full"
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "done"
    assert file.stat().st_size <= 4096
    assert run_in(child, f"exec({write!r})") == "done"
    assert file.stat().st_size == 10_000


def test_a_wall_clock_jumps_for_a_live_process_which_is_seen(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    environment = {**os.environ, **clock.environment}
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdin=-1, stdout=-1, text=True, env=environment
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def now_s() -> float:
            child.stdin.write("print(time.time(), time.monotonic())\n")
            child.stdin.flush()
            first, second = child.stdout.readline().split()
            child.stdout.readline()
            return float(first) - float(second)

        start_s = now_s()
        assert clock.seen() == 0
        clock.jump_to(-86_400.0)
        assert now_s() - start_s == pytest.approx(-86_400.0, abs=1.0)
        clock.jump_to(1e8)
        assert now_s() - start_s == pytest.approx(1e8, abs=1.0)
        assert clock.seen() == 2
        child.stdin.close()
