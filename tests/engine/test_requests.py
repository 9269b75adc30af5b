"""Request fields: what a client may send, and what it is told when it may not."""

from __future__ import annotations

import pytest
from governor_protos.limits import MAX_COUNT
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.errors import RequestFieldError
from sglang_patch.fields import FIELDS, MAX_EXPECTED_TOKENS, MAX_SLO_MS
from sglang_patch.near import MOST_NAMES
from sglang_patch.placing import check_places
from sglang_patch.requests import (
    GROUP_KEY,
    MAX_DEPTH,
    FieldRules,
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
        ({"branch_group": "a", "branch_role": ["trunk"]}, "branch_role"),
        ({"tpot_slo_ms": 10**400}, "tpot_slo_ms"),
        ({"tpot_slo_ms": 10**5000}, "tpot_slo_ms"),
        ({"expected_tokens": 10**5000}, "expected_tokens"),
        ({"tpot_slo": 40}, "tpot_slo"),
        ({"branch_grp": "a"}, "branch_grp"),
        ({GROUP_KEY: "stolen"}, GROUP_KEY),
        ("text", "*"),
    ],
)
def test_bad_field_is_named(params: object, field: str) -> None:
    with pytest.raises(RequestFieldError, match=r"custom_params\.") as caught:
        validated(params, n=1, request_id="r")
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)  # what SGLang answers with 400


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=3), st.integers(1, 2))
def test_other_peoples_parameters_pass_as_they_are(params: dict[str, object], n: int) -> None:
    """Whatever SGLang carries, the empty name among it: only what is Governor's own is judged."""
    passed = validated(params, n=n, request_id="r")
    assert passed is not None
    assert passed == params | ({GROUP_KEY: "n:r"} if n > 1 else {})
    terms(passed)


def nest(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_nesting_that_sglang_could_not_send_is_refused_with_that_reason() -> None:
    assert validated({"plan": nest(MAX_DEPTH)}, n=1, request_id="r")
    with pytest.raises(RequestFieldError, match="plan: is nested deeper than 400 levels"):
        validated({"plan": nest(MAX_DEPTH + 1)}, n=1, request_id="r")
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(RequestFieldError, match="plan"):
        validated({"plan": ring}, n=1, request_id="r")


def test_a_ring_is_refused_however_often_it_leads_back_to_itself() -> None:
    """Only the offline engine can be given one. Walked branch by branch it would never end."""
    ring: list[object] = []
    ring += [ring, ring]
    with pytest.raises(RequestFieldError, match="deeper than"):
        validated({"ring": ring}, n=1, request_id="r")


def test_names_of_an_object_that_holds_data_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Comparing takes longer than parsing, and all other requests would wait for it."""
    compared: list[str] = []
    monkeypatch.setattr("sglang_patch.requests.near", compared.append)
    monkeypatch.setattr("sglang_patch.placing.near", compared.append)
    weights = {f"token_{number}": 0.5 for number in range(MOST_NAMES)}
    assert validated(weights, n=1, request_id="r") == weights
    assert len(compared) == MOST_NAMES
    assert validated({**weights, "tpot_slo": 4}, n=1, request_id="r") is not None
    check_places("/generate", {**weights, "tpot_slo": 4})
    assert len(compared) == MOST_NAMES
    with pytest.raises(RequestFieldError, match=r"^tpot_slo_ms: "):
        check_places("/generate", {**weights, "tpot_slo_ms": 4})


def test_more_samples_than_the_operator_allows_are_refused_by_the_settings_name() -> None:
    rules = FieldRules(max_n=64)
    assert validated({}, n=64, request_id="r", rules=rules)
    assert validated({}, n=20_000, request_id="r")
    with pytest.raises(RequestFieldError, match=r"^n: is 65; GOVERNOR_MAX_N allows at most 64"):
        validated({}, n=65, request_id="r", rules=rules)


def test_near_misses_pass_where_the_operator_lets_them() -> None:
    rules = FieldRules(check_names=False)
    params = {"tpot_slo": 40, "branch_grp": "a"}
    assert validated(params, n=1, request_id="r", rules=rules) == params
    with pytest.raises(RequestFieldError, match="did you mean 'tpot_slo_ms'"):
        validated(params, n=1, request_id="r")


weird_values = json_values | st.sampled_from([10**400, -(10**5000), b"x", object(), (), {1: 2}])


@given(
    weird_values
    | st.dictionaries(st.sampled_from([*FIELDS, GROUP_KEY, "other"]), weird_values, max_size=8)
)
def test_terms_of_unchecked_parameters_are_usable_or_left_out(params: object) -> None:
    """The scheduler reads them in its step: it must not raise, and what it reads fits the wire."""
    read = terms(params)
    is_protected(params)
    assert isinstance(read.group, str)
    assert read.ttft_slo_s is None or 0 < read.ttft_slo_s <= MAX_SLO_MS / 1e3
    assert read.tpot_slo_s is None or 0 < read.tpot_slo_s <= MAX_SLO_MS / 1e3
    assert 0 <= read.expected_tokens <= MAX_EXPECTED_TOKENS
    assert isinstance(read.protected, bool)


def test_fields_of_no_use_are_counted() -> None:
    assert terms({"tpot_slo_ms": "fast", "expected_tokens": 5}).ignored_fields == 1
    assert terms({"tpot_slo_ms": "fast", "protected": 1, GROUP_KEY: 7}).ignored_fields == 3
    assert terms("text").ignored_fields == 1
    assert terms(validated({"tpot_slo_ms": 4, "x": [[1]]}, n=4, request_id="r")).ignored_fields == 0


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
    params = {"thinking_budget": 5, "names": ["a", "b"], "table": {"a": {"b": [[1]]}}, "": 2**70}
    assert validated(params, n=1, request_id="r") == params
    assert validated({}, n=1, request_id="r") == {}
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
