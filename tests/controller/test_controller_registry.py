"""Policies by name: what can be written, and what an error says."""

from __future__ import annotations

from importlib import metadata

import msgspec
import numpy as np
import pytest
from controller_builders import KnownPredictor, extra, state_of, trunk
from governor_protos.messages import Band

from controller_service.policies import registry
from controller_service.policies.base import PolicyFailed, PolicyKind, StepPlan
from controller_service.policies.registry import UnknownPolicy, parse_policy


def settings(text):
    return msgspec.structs.asdict(parse_policy(text).branches.config)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("off", {}),
        ("cap:2", {"width": 2}),
        ("cap:width=7", {"width": 7}),
        ("taper", {"utility": "linear", "rho": 0.8, "slack": True}),
        ("taper:utility=log1p,rho=0.6", {"utility": "log1p", "rho": 0.6, "slack": True}),
        ("taper:slack=false", {"utility": "linear", "rho": 0.8, "slack": False}),
        ("taper:priority", {"utility": "priority", "rho": 0.8, "slack": True}),
        ("random:0.5", {"probability": 0.5, "seed": 0}),
        ("random:0.5:42", {"probability": 0.5, "seed": 42}),
        (" eager ", {}),
    ],
)
def test_reads(text, config):
    assert settings(text) == config
    assert parse_policy(text).label == text.strip()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tapir", "choose one of off, cap, eager, taper, taper_plus, random"),
        ("", "choose one of"),
        ("cap", "cap:2"),
        ("cap:0", "'cap': width: expected a whole number from 1 to 4096, got '0'.*cap:2"),
        ("cap:two", "'cap': width: .*got 'two'.*cap:2"),
        ("cap:2:3", "at most 1 settings"),
        ("taper:rho=2", "'taper': rho: expected a number from 0 to 1, got '2'"),
        ("taper:speed=2", "'taper': no setting 'speed'; did you mean 'slack'"),
        ("taper:rho=0.1,rho=0.2", "twice"),
        ("off:1", "at most 0 settings"),
        ("random:nan", "'random'"),
        ("x" * 300, "256"),
    ],
)
def test_errors_name_the_policy_and_the_remedy(text, says):
    with pytest.raises(UnknownPolicy, match=says):
        parse_policy(text)


def offer(monkeypatch, **values):
    class Point:
        def __init__(self, name, value):
            self.name, self.value, self._loaded = name, f"a_package:{name}", value

        def load(self):
            if isinstance(self._loaded, Exception):
                raise self._loaded
            return self._loaded

    points = [Point(name, value) for name, value in values.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)


def test_a_function_from_another_package_is_a_policy(monkeypatch):
    offer(monkeypatch, greedy=lambda state, predictor, config: StepPlan(park=state.parkable))
    state = state_of([trunk(1), extra(1)])
    policy = parse_policy("greedy")
    assert policy.plan(state, KnownPredictor(0, 0, 0)).park.tolist() == [False, True]
    assert policy.standing_orders(state, KnownPredictor(0, 0, 0), 8) == [Band(8, -1, -1)]


def test_another_package_cannot_replace_a_policy_that_ships(monkeypatch):
    offer(monkeypatch, taper=lambda state, predictor, config: None)
    assert parse_policy("taper").branches.kind is registry.BUILT_IN["taper"]


@pytest.mark.parametrize("value", [3, ImportError("no module named x"), RuntimeError("boom")])
def test_a_broken_offer_is_named_and_leaves_the_others_alone(monkeypatch, value):
    offer(monkeypatch, broken=value)
    assert parse_policy("taper").branches.kind.name == "taper"
    with pytest.raises(UnknownPolicy, match="broken"):
        parse_policy("broken")


@pytest.mark.parametrize(
    "result",
    [
        None,
        StepPlan(park=np.zeros(1, dtype=np.bool_)),
        StepPlan(park=np.zeros(2)),
        StepPlan(park=np.zeros(2, dtype=np.bool_), slack_s="soon"),
    ],
)
def test_what_is_no_plan_is_a_failure_of_the_policy(monkeypatch, result):
    offer(monkeypatch, odd=PolicyKind("odd", lambda state, predictor, config: result))
    with pytest.raises(PolicyFailed):
        parse_policy("odd").plan(state_of([trunk(1), extra(1)]), KnownPredictor(0, 0, 0))


@pytest.mark.parametrize("bands", [[], [Band(4, 1, 1), Band(2, 1, 1)], [Band(1, -9, 0)], None])
def test_orders_that_break_the_contract_are_a_failure_of_the_policy(monkeypatch, bands):
    kind = PolicyKind("odd", registry.BUILT_IN["eager"].decide, orders=lambda *_: bands)
    offer(monkeypatch, odd=kind)
    with pytest.raises(PolicyFailed):
        parse_policy("odd").standing_orders(state_of([trunk(1)]), KnownPredictor(0, 0, 0), 8)
