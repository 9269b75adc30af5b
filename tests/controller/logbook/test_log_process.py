"""The log of a real controller process: what a kill leaves, and that decisions are the same."""

from __future__ import annotations

import json
import re
import time

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from controller_builders import batch, feedback_of, hello_of, snapshot_of
from governor_protos.messages import RequestEnd

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.logbook.book import Logbook
from controller_service.logbook.reading import list_files, read_ends, read_samples

ROWS = batch(4, 4)


def ask(engine, step, ends=(), **facts):
    report = feedback_of(step - 1, rows=step % 9 + 1, context=500 * (step % 7 + 1), **facts)
    snapshot = snapshot_of(ROWS, step, [report])
    return engine.ask(msgspec.structs.replace(snapshot, ended=list(ends)))


def records(controller) -> dict:
    return json.loads(controller.get("/v1/status")[1])["log"]


def until(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, "it does not happen"
        time.sleep(0.02)


def test_every_step_and_end_of_an_engine_is_in_the_log(launch, connect, tmp_path):
    controller = launch("--policy", "taper", "--log-dir", str(tmp_path), "--log-rows", "100")
    engine = connect(controller.endpoint)
    engine.ask(hello_of())
    decisions = [
        ask(engine, step, [RequestEnd(step, 0, 5, 6, 7, 0, 1.0)] if step % 50 == 0 else [])
        for step in range(1, 301)
    ]
    until(lambda: records(controller)["written"] == {"steps": 300, "requests": 6})
    status = records(controller)
    assert (status["folder"], status["error"]) == (str(tmp_path), "")
    name = json.loads(controller.get("/v1/status")[1])["engines"][0]["predictor"]["name"]
    metrics = controller.get("/metrics")[1]
    assert 'governor_log_records_total{table="steps"}' in metrics
    assert 'governor_log_dropped_total{reason="full"} 0.0' in metrics
    assert "governor_log_bytes" in metrics
    code, log = controller.stop()
    assert (code, f"decision log: {tmp_path}" in log) == (0, True)
    rows = [row for path in list_files([str(tmp_path)]) for row in pq.read_table(path).to_pylist()]
    assert [row["step"] for row in rows] == list(range(300))
    assert len(read_ends([str(tmp_path)])) == 6
    # Decision t and what came of t stand in one row, as they were sent.
    for row, decision in zip(rows[1:], decisions[:-1], strict=True):
        assert row["step"] == decision.for_step
        assert (row["decided"], row["policy"]) == (True, decision.policy)
        assert row["decided_parked_rows"] == len(decision.park) // 4
        assert row["predicted_step_s"] == pytest.approx(decision.predicted_step_s, rel=1e-6)
        assert row["slack_s"] == pytest.approx(decision.slack_s, rel=1e-6)
    assert not rows[0]["decided"]
    late = rows[100:]
    assert all(0 < row["expected_s"] <= row["expected_p90_s"] for row in late)
    assert {row["predictor"] for row in rows} == {name}


def test_a_kill_loses_the_open_buffers_and_nothing_else(launch, connect, tmp_path):
    flags = ("--log-dir", str(tmp_path), "--log-rows", "16")
    controller = launch("--policy", "cap:2", *flags)
    engine = connect(controller.endpoint)
    engine.ask(hello_of())
    step = 0

    def some_steps(count: int) -> None:
        nonlocal step
        for _ in range(count):
            step += 1
            ask(engine, step)

    some_steps(200)
    until(lambda: records(controller)["written"]["steps"] >= 64)
    some_steps(37)
    told = records(controller)
    controller.kill()  # in the middle of whatever it writes
    damage = []
    rows = [
        row
        for _, samples in read_samples([str(tmp_path)], on_damage=damage.append)
        for row in samples.rows
    ]
    assert damage == []
    assert told["written"]["steps"] <= len(rows) <= step
    assert sum(told["dropped"].values()) + len(rows) >= step - 4 * 16
    # The next controller goes on in the same folder.
    again = launch("--policy", "cap:2", *flags)
    other = connect(again.endpoint, b"other")
    other.ask(hello_of(incarnation="b"))
    for count in range(1, 33):
        ask(other, count)
    assert again.stop()[0] == 0
    after = {o.incarnation: 0 for o, _ in read_samples([str(tmp_path)])}
    for origin, samples in read_samples([str(tmp_path)]):
        after[origin.incarnation] += len(samples)
    assert after == {"a": len(rows), "b": 32}
    assert not list(tmp_path.rglob("*.writing"))


@pytest.mark.parametrize("policy", ["taper", "random:0.5:3"])
def test_decisions_are_the_same_with_and_without_a_log(tmp_path, policy):
    book = Logbook(tmp_path, 64 << 20, 16, "0.1.0")
    book.start()
    both = [Controller(ControllerConfig(policy=policy), log) for log in (None, book)]
    rng = np.random.default_rng(5)
    for controller in both:
        controller.answer(b"x", hello_of(), 0.0)
    for step in range(1, 400):
        latency_s = float(rng.uniform(0.005, 0.02))
        report = feedback_of(step - 1, rows=step % 13 + 1, latency_s=latency_s)
        snapshot = snapshot_of(batch(3, 4, seed=step), step, [report])
        replies = [controller.answer(b"x", snapshot, step * 0.02) for controller in both]
        assert replies[0] == replies[1]
        for controller in both:
            controller.settle(b"x", snapshot, step * 0.02)
    book.close()
    health = book.health()
    assert health.written["steps"] + health.dropped["full"] == 399


def test_a_folder_that_cannot_be_used_stops_the_start(launch, tmp_path):
    folder = tmp_path / "log"
    folder.write_text("a file")
    code, log = launch("--log-dir", str(folder)).wait()
    assert code == 1
    assert re.search(r"log_dir .*: File exists; name a folder", log)
    assert "Traceback" not in log


def test_two_controllers_do_not_share_a_folder(launch, tmp_path):
    first = launch("--log-dir", str(tmp_path))
    assert first.http
    second = launch("--endpoint", f"ipc://{tmp_path}/s.sock", "--log-dir", str(tmp_path))
    code, log = second.wait()
    assert (code, "another controller writes its log there" in log) == (1, True)


def test_a_folder_that_vanishes_costs_nothing_but_its_records(launch, connect, tmp_path):
    folder = tmp_path / "log"
    controller = launch("--policy", "cap:2", "--log-dir", str(folder), "--log-rows", "16")
    engine = connect(controller.endpoint)
    engine.ask(hello_of())
    for step in range(1, 40):
        ask(engine, step)
    until(lambda: records(controller)["written"]["steps"] >= 32)
    moved = tmp_path / "gone"
    folder.rename(moved)
    folder.write_text("in the way")
    for step in range(40, 100):
        assert ask(engine, step).for_step == step
    until(lambda: records(controller)["error"])
    folder.unlink()
    moved.rename(folder)
    for step in range(100, 160):
        assert ask(engine, step).for_step == step
    until(lambda: not records(controller)["error"])
    assert controller.get("/healthz")[0] == 200
    told = records(controller)
    assert told["dropped"]["unwritable"] > 0
    assert told["write_errors"] > 0
