"""Request fields: what a client may send, and what it is told when it may not."""

from __future__ import annotations

import msgspec
import pytest
from governor_protos.limits import MAX_COUNT
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.errors import RequestFieldError
from sglang_patch.requests import (
    GROUP_KEY,
    MAX_EXPECTED_TOKENS,
    is_protected,
    terms,
    validated,
)


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    names = st.text(max_size=8)
    return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    nested,
    max_leaves=8,
)
SCALARS = (type(None), bool, int, float, str)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"branch_group": ""}, "branch_group"),
        ({"branch_group": "x" * 129}, "branch_group"),
        ({"branch_group": ["a"]}, "branch_group"),
        ({"branch_group": 7}, "branch_group"),
        ({"branch_group": "a", "branch_role": "leader"}, "branch_role"),
        ({"branch_role": "trunk"}, "branch_role"),
        ({"tpot_slo_ms": 0}, "tpot_slo_ms"),
        ({"tpot_slo_ms": float("nan")}, "tpot_slo_ms"),
        ({"tpot_slo_ms": "fast"}, "tpot_slo_ms"),
        ({"ttft_slo_ms": True}, "ttft_slo_ms"),
        ({"ttft_slo_ms": 1e9}, "ttft_slo_ms"),
        ({"protected": "yes"}, "protected"),
        ({"protected": 1}, "protected"),
        ({"protected": [True]}, "protected"),
        ({"expected_tokens": 0}, "expected_tokens"),
        ({"expected_tokens": -5}, "expected_tokens"),
        ({"expected_tokens": True}, "expected_tokens"),
        ({"expected_tokens": 120.5}, "expected_tokens"),
        ({"expected_tokens": "120"}, "expected_tokens"),
        ({"expected_tokens": [120]}, "expected_tokens"),
        ({"expected_tokens": MAX_EXPECTED_TOKENS + 1}, "expected_tokens"),
        ({"other": {"a": {"b": 1}}}, "other"),
        ({"other": [[1]]}, "other"),
        ({"other": 2**70}, "other"),
        ({"other": [-(2**70)]}, "other"),
        ({GROUP_KEY: "stolen"}, GROUP_KEY),
        ("text", "*"),
    ],
)
def test_bad_field_is_named(params: object, field: str) -> None:
    with pytest.raises(RequestFieldError, match=r"custom_params\.") as caught:
        validated(params, n=1, request_id="r")
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)  # what SGLang answers with 400


@given(json_values)
def test_whatever_passes_is_flat_enough_for_the_scheduler(params: object) -> None:
    try:
        passed = validated(params, n=1, request_id="r")
    except RequestFieldError:
        return
    for value in (passed or {}).values():
        inner = value if isinstance(value, list) else []
        inner = list(value.values()) if isinstance(value, dict) else inner
        assert isinstance(value, (dict, list, *SCALARS))
        assert all(isinstance(item, SCALARS) for item in inner)
    msgspec.msgpack.encode(passed)
    terms(passed)


def test_samples_of_one_request_form_a_group_of_their_own() -> None:
    one = terms(validated(None, n=4, request_id="a"))
    other = terms(validated({}, n=4, request_id="b"))
    tagged = terms(validated({"branch_group": "a"}, n=1, request_id="c"))
    assert len({one.group, other.group, tagged.group}) == 3
    assert not one.trunk


@given(st.text(min_size=1, max_size=128), st.text(min_size=1), st.text(min_size=1))
def test_no_name_of_a_group_reaches_the_samples_of_another_request(
    name: str, request_id: str, own_id: str
) -> None:
    samples = terms(validated(None, n=2, request_id=request_id))
    for guess in (name, f"n:{request_id}"[:128], request_id[:128]):
        mine = terms(validated({"branch_group": guess}, n=1, request_id=own_id))
        assert mine.group != samples.group


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_scoped_name_cannot_be_set_by_a_client(suffix: str, value: str) -> None:
    with pytest.raises(RequestFieldError, match="reserved"):
        validated({f"_governor{suffix}": value}, n=1, request_id="r")


def test_a_tagged_group_cannot_be_combined_with_samples() -> None:
    with pytest.raises(RequestFieldError, match="n > 1"):
        validated({"branch_group": "a"}, n=2, request_id="r")


def test_other_parameters_pass_untouched() -> None:
    params = {"thinking_budget": 5, "names": ["a", "b"], "table": {"a": 1}}
    assert validated(params, n=1, request_id="r") == params
    assert validated(None, n=1, request_id="r") is None


def test_targets_are_read_in_seconds() -> None:
    read = terms(validated({"ttft_slo_ms": 500, "tpot_slo_ms": 25.0}, n=1, request_id="r"))
    assert (read.ttft_slo_s, read.tpot_slo_s) == (0.5, 0.025)


@pytest.mark.parametrize(("value", "protected"), [(True, True), (False, False), (None, False)])
def test_whoever_asks_for_it_is_protected(value: bool | None, protected: bool) -> None:
    params = validated({"protected": value, "other": 1}, n=1, request_id="r")
    assert terms(params).protected == is_protected(params) == protected
    assert not terms(None).protected


@given(st.integers(1, MAX_EXPECTED_TOKENS))
def test_a_hint_passes_as_it_is_and_fits_the_wire(hint: int) -> None:
    read = terms(validated({"expected_tokens": hint}, n=4, request_id="r"))
    assert read.expected_tokens == hint <= MAX_COUNT


@pytest.mark.parametrize("params", [None, {}, {"expected_tokens": None}, {"other": 1}])
def test_without_a_hint_nothing_is_expected(params: dict[str, object] | None) -> None:
    assert terms(validated(params, n=1, request_id="r")).expected_tokens == 0
