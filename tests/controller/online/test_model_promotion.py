"""Models in a running controller: promoted, refused, watched, rolled back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from controller_builders import batch, feedback_of, hello_of, snapshot_of
from governor_protos.messages import Decision
from online_builders import HERE, model_folder, steps

from controller_service.learning.model import EngineKey

ROWS = batch(4, 4)
ELSEWHERE = EngineKey("another/model", "NVIDIA H200", 2, "0.5.17")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model of this engine, one of it at another speed, one of another engine, a damaged one."""
    folder = tmp_path_factory.mktemp("models")
    model_folder(folder / "right")
    model_folder(folder / "slow", factor=1.5)
    model_folder(folder / "elsewhere", engine=ELSEWHERE)
    shutil.copytree(folder / "right", folder / "cut")
    largest = max((folder / "cut").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    return folder


class Governed:
    """An engine whose steps take what they take, and its controller."""

    def __init__(self, launch, connect, *flags: str) -> None:
        self.controller = launch("--policy", "off", *flags)
        self.engine = connect(self.controller.endpoint)
        self.engine.ask(hello_of())
        self.step = 1

    def run(self, count: int, seed: int = 0, factor: float = 1.0) -> None:
        for sample in steps(count, seed, factor=factor):
            report = feedback_of(
                self.step - 1, sample.rows, sample.context_tokens, latency_s=sample.latency_s
            )
            decision = self.engine.ask(snapshot_of(ROWS, self.step, [report]))
            assert isinstance(decision, Decision) and decision.for_step == self.step
            self.step += 1

    def put(self, folder, **more) -> tuple[int, dict]:
        body = json.dumps({"path": str(folder), **more}).encode()
        return self.controller.put("/v1/model", body)

    def roll_back(self, body: bytes = b"") -> tuple[int, dict]:
        request = urllib.request.Request(
            self.controller.http + "/v1/model/rollback", data=body, method="POST"
        )
        status, text = self.controller._ask(request)
        return status, json.loads(text)

    def shown(self) -> dict:
        return json.loads(self.controller.get("/v1/model")[1])["engines"][0]

    def metric(self, line: str) -> bool:
        return line in self.controller.get("/metrics")[1]

    def error(self) -> float:
        status = json.loads(self.controller.get("/v1/status")[1])
        return status["engines"][0]["predictor"]["mape_recent"]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [
                *(sys.executable, "-m", "controller_service", "model", *arguments),
                *("--controller", self.controller.http),
            ],
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def governed(launch, connect):
    def start(*flags: str) -> Governed:
        return Governed(launch, connect, *flags)

    return start


@pytest.mark.parametrize("predictor", ["corrected-linear", "linear"])
def test_a_model_is_promoted_while_the_engine_runs(governed, models, predictor) -> None:
    here = governed("--predictor", predictor)
    here.run(500)
    before = here.error()
    assert here.shown()["model"] is None
    status, answer = here.put(models / "right")
    assert status == 200, answer
    assert answer["family"] == "measured"
    assert answer["engines"][0]["result"] == "promoted"
    here.run(600, seed=1)
    assert here.error() < 0.6 * before
    shown = here.shown()
    assert (shown["model"], shown["watched"]) == (answer["model"], False)
    assert here.metric(
        f'governor_model_info{{engine="engine-1",family="measured",model="{answer["model"]}"}} 1.0'
    )
    assert here.metric("governor_model_promotions_total 1.0")
    assert here.put(models / "right")[1]["error"]["reason"] == "same"


def test_a_model_that_is_no_better_is_refused_and_the_engine_keeps_its_own(
    governed, models
) -> None:
    here = governed()
    here.run(500)
    status, answer = here.put(models / "slow")
    assert (status, answer["error"]["field"]) == (409, "path")
    assert answer["error"]["reason"] == "not_better"
    assert here.shown()["model"] is None
    assert here.metric('governor_model_refusals_total{reason="not_better"} 1.0')
    here.run(20, seed=2)


def test_a_forced_model_that_does_worse_is_rolled_back_by_itself(governed, models) -> None:
    here = governed()
    here.run(500)
    status, answer = here.put(models / "slow", force=True)
    assert (status, here.shown()["model"]) == (200, answer["model"])
    here.run(200, seed=3)
    assert here.shown()["model"] is None
    assert here.shown()["rolled_back"] == [answer["model"]]
    assert here.metric("governor_model_rollbacks_total 1.0")
    again = here.put(models / "slow")
    assert (again[0], again[1]["error"]["reason"]) == (409, "rolled_back")
    log = here.controller.stop()[1]
    assert log.count(f"model {answer['model']} rolled back to the online line") == 1


def test_rolled_back_by_hand(governed, models) -> None:
    here = governed()
    here.run(500)
    assert here.roll_back() == (
        409,
        {
            "error": {
                "field": "engine",
                "message": "no model predicts, nothing to roll back",
                "reason": "no_model",
            }
        },
    )
    model = here.put(models / "right")[1]["model"]
    status, answer = here.roll_back(b'{"engine": "engine-1"}')
    assert status == 200
    assert answer["engines"] == [
        {"engine": "engine-1", "model": model, "predicts_by": "the online line"}
    ]
    here.run(20, seed=2)


@pytest.mark.parametrize(
    ("folder", "status", "field", "reason"),
    [
        ("nowhere", 400, "path", "missing"),
        ("cut", 400, "path", None),
        ("elsewhere", 409, "engine", "engine"),
    ],
)
def test_what_cannot_be_used_is_refused(governed, models, folder, status, field, reason) -> None:
    here = governed()
    here.run(200)
    got, answer = here.put(models / folder)
    assert (got, answer["error"]["field"]) == (status, field)
    if reason:
        assert answer["error"]["reason"] == reason
    counted = f'governor_model_refusals_total{{reason="{answer["error"]["reason"]}"}} 1.0'
    assert here.metric(counted)
    here.run(20, seed=2)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"path": ""}', b'{"path": 3}', b'{"path": "x", "faith": 1}', b"\xff"],
)
def test_a_bad_body_is_refused(launch, body) -> None:
    controller = launch()
    status, answer = controller.put("/v1/model", body)
    assert (status, answer["error"]["field"]) == (400, "body")


def test_an_engine_that_is_not_there_and_a_predictor_that_takes_no_model(governed, models) -> None:
    here = governed("--predictor", "published")
    status, answer = here.put(models / "right", engine="engine-9")
    assert (status, answer["error"]["field"]) == (404, "engine")
    status, answer = here.put(models / "right")
    assert (status, answer["error"]["field"]) == (409, "predictor")
    assert "takes no models" in answer["error"]["message"]


def test_too_few_steps_to_compare(governed, models) -> None:
    here = governed()
    here.run(100)
    status, answer = here.put(models / "right")
    assert (status, answer["error"]["reason"]) == (409, "too_few_steps")
    assert here.put(models / "right", force=True)[0] == 200


def test_a_model_to_start_with(governed, models) -> None:
    here = governed("--model", str(models / "right"))
    assert here.shown()["family"] == "measured"
    here.run(200)
    assert here.error() < 0.03


def test_a_model_promoted_before_any_engine_waits_for_it(launch, connect, models) -> None:
    controller = launch()
    body = json.dumps({"path": str(models / "right")}).encode()
    status, answer = controller.put("/v1/model", body)
    assert (status, answer["engines"]) == (200, [])
    connect(controller.endpoint).ask(hello_of())
    (shown,) = json.loads(controller.get("/v1/model")[1])["engines"]
    assert shown["model"] == answer["model"]


def test_a_damaged_model_stops_the_start(launch, models) -> None:
    code, log = launch("--model", str(models / "cut")).wait()
    assert code == 1
    assert f"--model {models / 'cut'}" in log
    assert "Traceback" not in log


def test_a_predictor_without_models_stops_a_start_with_one(launch, models) -> None:
    code, log = launch("--model", str(models / "right"), "--predictor", "constant").wait()
    assert code == 1
    assert "takes no models" in log


def test_an_engine_of_another_kind_runs_with_its_line(governed, models) -> None:
    here = governed("--model", str(models / "elsewhere"))
    here.run(100)
    assert here.shown()["model"] is None
    assert here.metric('governor_model_refusals_total{reason="engine"} 1.0')
    assert here.controller.stop()[1].count("it runs with the online line") == 1


def test_the_command_line(governed, models) -> None:
    here = governed()
    assert "corrected-linear: the online line" in here.cli("show").stdout
    here.run(500)
    promoted = here.cli("promote", str(models / "right"))
    assert promoted.returncode == 0, promoted.stderr
    assert "engine-1: promoted (off by" in promoted.stdout
    assert "measured model" in here.cli("show").stdout
    assert "predicts by the online line" in here.cli("rollback").stdout
    refused = here.cli("promote", str(models / "right"))
    assert refused.returncode == 1
    assert "was rolled back before" in refused.stderr


def test_an_attainable_p90_and_a_correction_are_shown(governed) -> None:
    here = governed("--predictor", "corrected-linear")
    here.run(700)
    text = here.controller.get("/metrics")[1]
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    engine = '{engine="engine-1"}'
    assert 0.8 < float(values["governor_predictor_p90_coverage" + engine]) < 0.97
    assert 0.8 < float(values["governor_predictor_correction_ratio" + engine]) < 1.25
    here.run(60, seed=2, factor=2.0)
    assert here.metric("governor_predictor_drifts_total 1.0")
    assert np.isfinite(here.error())


def test_a_controller_fits_a_model_of_its_own(governed) -> None:
    here = governed("--predictor", "corrected-measured")
    here.run(600)
    for seed in range(600):  # the fit has a process of its own, and the machine may be busy
        here.run(5, seed=seed)
        if here.shown()["model"]:
            break
        time.sleep(0.1)
    metrics = here.controller.get("/metrics")[1]
    told = [line for line in metrics.splitlines() if line.startswith("governor_predictor_")]
    assert here.shown()["family"] == "measured", told
    assert here.metric('governor_predictor_refits_total{result="promoted"} 1.0')
    assert here.controller.stop()[0] == 0
    assert HERE.sglang_version == "0.5.17"
