"""Sound documents with any value in any place: valid, or the documented error. No fuzzer needed."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from seeds import CONTROLLER, ENGINE_SIDE, MIX, seeds
from targets import TARGETS

from controller_service.config import ControllerConfig
from controller_service.learning.arrays import pack
from controller_service.learning.samples import COLUMNS
from sglang_patch.config import EngineConfig

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=12)  # surrogates and zero bytes too
    | st.sampled_from([10**400, 1 << 63, -(1 << 63), "x" * 5000, "tcp://127.0.0.1:1", "/nowhere"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
few = settings(max_examples=120, deadline=None)

DOCUMENTS: dict[str, list[Any]] = {
    "profile": [json.loads(seeds("profile")[0])],
    "workload": [
        MIX,
        {"start_s": 1.5, "duration_s": 2, "rate_factor": 2, "max_requests": 3},
        {"timestamp": 27, "input_length": 700, "output_length": 5, "hash_ids": [1, 2]},
    ],
    "manifest": [json.loads(seeds("manifest")[0])],
    "request_fields": [{"branch_group": "a", "branch_role": "trunk", "ttft_slo_ms": 10}],
}
BODIES: list[Any] = [
    {"policy": "cap:2"},
    {"path": "/nowhere", "engine": "e", "force": True},
    {"engine": "e"},
]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A document with another value somewhere, or one that is not there."""
    found = copy.deepcopy(document)
    place = found
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            place = inner
            continue
        if draw(st.integers(0, 5)):
            place[key] = draw(values)
        else:
            del place[key]
        return found


@pytest.mark.parametrize("name", DOCUMENTS)
@few
@given(st.data())
def test_documents(name: str, data: st.DataObject) -> None:
    document = data.draw(changed(data.draw(st.sampled_from(DOCUMENTS[name]))))
    TARGETS[name](json.dumps(document).encode())


@few
@given(st.data())
def test_bodies(data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(BODIES) - 1))
    body = json.dumps(data.draw(changed(BODIES[chosen]))).encode()
    TARGETS["http"](bytes([chosen]) + body)


@pytest.mark.parametrize(
    ("name", "fields", "sound"),
    [
        ("controller_settings", ControllerConfig.__struct_fields__, CONTROLLER),
        ("engine_settings", EngineConfig.__struct_fields__, ENGINE_SIDE),
    ],
)
@few
@given(st.data())
def test_settings(name: str, fields: tuple[str, ...], sound: bytes, data: st.DataObject) -> None:
    names = st.sampled_from(fields) | st.text(max_size=6)
    written = data.draw(st.dictionaries(names, values, max_size=3))
    lines = "".join(f"{json.dumps(name)}: {json.dumps(value)}\n" for name, value in written.items())
    TARGETS[name](lines.encode())
    TARGETS[name](sound.replace(b"\n\n", b"\n" + lines.encode() + b"\n"))


@few
@given(st.dictionaries(st.sampled_from(EngineConfig.__struct_fields__), st.text(max_size=12)))
def test_variables(variables: dict[str, str]) -> None:
    lines = "\n".join(f"{name.upper()}={value}" for name, value in variables.items())
    TARGETS["engine_settings"](b"\n\n" + lines.encode("utf-8", "replace"))


@few
@given(st.data())
def test_columns_of_samples(data: st.DataObject) -> None:
    kinds = st.sampled_from([np.float64, np.float32, np.int64, np.bool_])
    shapes = array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)
    columns = {
        name: data.draw(arrays(data.draw(kinds), data.draw(shapes)))
        for name in COLUMNS
        if data.draw(st.integers(0, 9))
    }
    TARGETS["samples"](pack(columns))


@pytest.mark.parametrize("name", ["controller", "link"])
@few
@given(st.binary(min_size=200, max_size=1500))
def test_conversations(name: str, choices: bytes) -> None:
    TARGETS[name](choices)
