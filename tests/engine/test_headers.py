"""Request headers: which fields they stand for, and what a client is told of a bad one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.errors import RequestFieldError
from sglang_patch.headers import HEADERS, fields_in
from sglang_patch.requests import MAX_SLO_MS, terms, validated
from sglang_patch.seams import tokenizer

GROUP = (b"x-governor-branch-group", b"plan")


def raw(**headers: str) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them: ``x_governor_tpot_slo_ms="40"``."""
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


def test_every_header_stands_for_its_field() -> None:
    fields = fields_in(
        raw(
            x_governor_branch_group="plan",
            x_governor_branch_role="trunk",
            x_governor_tpot_slo_ms="40",
            x_governor_ttft_slo_ms="250.5",
            x_governor_expected_tokens="120",
            content_type="application/json",
        )
    )
    assert fields == {
        "branch_group": "plan",
        "branch_role": "trunk",
        "tpot_slo_ms": 40.0,
        "ttft_slo_ms": 250.5,
        "expected_tokens": 120,
    }
    assert {header.field for header in HEADERS.values()} == set(fields)


def test_no_header_of_ours_is_no_field() -> None:
    assert fields_in(raw(host="a", accept="*/*", x_governor="1")) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-governor-tpot-slo-ms", "fast"),
        ("x-governor-tpot-slo-ms", ""),
        ("x-governor-tpot-slo-ms", "0"),
        ("x-governor-tpot-slo-ms", "nan"),
        ("x-governor-ttft-slo-ms", "-5"),
        ("x-governor-ttft-slo-ms", "1e9"),
        ("x-governor-expected-tokens", "12.5"),
        ("x-governor-expected-tokens", "0"),
        ("x-governor-expected-tokens", "9" * 30),
        ("x-governor-expected-tokens", "9" * 900),
        ("x-governor-branch-group", ""),
        ("x-governor-branch-group", "x" * 129),
        ("x-governor-branch-group", "x" * 100_000),
        ("x-governor-branch-role", "boss"),
        ("x-governor-branch-role", "trunk"),
        ("x-slo-ttft-ms", "soon"),
        ("x-slo-tpot-ms", "nan"),
    ],
)
def test_bad_header_is_named(name: str, value: str) -> None:
    with pytest.raises(RequestFieldError, match=f"header {name}: ") as caught:
        fields_in([(name.encode(), value.encode())])
    assert caught.value.field == name


def test_a_header_that_is_not_utf8_is_named() -> None:
    with pytest.raises(RequestFieldError, match="x-governor-branch-group: is not UTF-8"):
        fields_in([(b"x-governor-branch-group", b"\xff")])


def test_a_header_given_twice_must_say_the_same() -> None:
    assert fields_in([GROUP, GROUP]) == {"branch_group": "plan"}
    with pytest.raises(RequestFieldError, match="x-governor-branch-group: is given twice"):
        fields_in([GROUP, (GROUP[0], b"other")])


@pytest.mark.parametrize("value", ["", "0", "-3", "0.0"])
def test_a_gateway_without_a_target_says_zero_or_nothing(value: str) -> None:
    assert fields_in(raw(x_slo_ttft_ms=value, x_slo_tpot_ms=value)) == {}


def test_a_gateways_target_is_taken_and_a_very_long_one_is_cut() -> None:
    fields = fields_in(raw(x_slo_ttft_ms="86400000", x_slo_tpot_ms="20"))
    assert fields == {"ttft_slo_ms": MAX_SLO_MS, "tpot_slo_ms": 20.0}


def test_our_own_name_wins_over_a_gateways() -> None:
    headers = raw(x_governor_tpot_slo_ms="40", x_slo_tpot_ms="20")
    assert fields_in(headers) == fields_in(headers[::-1]) == {"tpot_slo_ms": 40.0}


@given(st.lists(st.tuples(st.sampled_from([name.encode() for name in HEADERS]), st.binary())))
def test_any_header_is_either_refused_by_name_or_fits_the_body(
    headers: list[tuple[bytes, bytes]],
) -> None:
    try:
        fields = fields_in(headers)
    except RequestFieldError as error:
        assert error.field in HEADERS
        return
    validated(fields, n=1, request_id="r")


def test_the_body_wins_over_headers() -> None:
    headers = {"branch_group": "a", "branch_role": "trunk", "tpot_slo_ms": 40.0}
    merged = validated({"tpot_slo_ms": 20}, n=1, request_id="r", headers=headers)
    assert terms(merged).tpot_slo_s == 0.02
    assert terms(merged).trunk
    silent = validated({"tpot_slo_ms": None}, n=1, request_id="r", headers=headers)
    assert terms(silent).tpot_slo_s is None
    alone = validated(None, n=1, request_id="r", headers=headers)
    assert terms(alone) == terms(validated(headers, n=1, request_id="r"))


def test_a_role_in_the_body_holds_for_the_group_of_the_headers() -> None:
    headers = {"branch_group": "a"}
    assert terms(validated({"branch_role": "trunk"}, n=1, request_id="r", headers=headers)).trunk


def test_a_group_in_the_body_takes_the_headers_role_away_as_well() -> None:
    headers = {"branch_group": "a", "branch_role": "trunk"}
    mine = terms(validated({"branch_group": "b"}, n=1, request_id="r", headers=headers))
    assert mine == terms(validated({"branch_group": "b"}, n=1, request_id="r"))


def test_samples_form_their_own_group_whatever_the_headers_say() -> None:
    headers = {"branch_group": "a", "branch_role": "trunk", "tpot_slo_ms": 40.0}
    samples = terms(validated(None, n=2, request_id="r", headers=headers))
    assert samples.group == terms(validated(None, n=2, request_id="r")).group
    assert not samples.trunk
    assert samples.tpot_slo_s == 0.04


class Tokenized(SimpleNamespace):
    """What SGLang's tokenizer hands on."""


def passed_through(request: object, custom_params: dict[str, Any] | None = None) -> Any:
    """What reaches the scheduler of a request that SGLang serves."""
    tokenized = Tokenized(
        rid="r", sampling_params=SimpleNamespace(custom_params=custom_params, n=1)
    )
    tokenizer.around_generate_request(lambda *_: None, None, None, request)
    tokenizer.after_create_tokenized_object(tokenized, None, None)
    return tokenized.sampling_params.custom_params


def test_headers_of_one_request_do_not_reach_the_next() -> None:
    """One task serves both: requests on one connection, or a program with an offline engine."""
    first = SimpleNamespace(scope={"headers": [GROUP]})
    assert terms(passed_through(first)).group
    assert passed_through(SimpleNamespace(scope={"headers": []})) is None
    assert terms(passed_through(first)).group
    assert passed_through(None) is None
    assert passed_through(SimpleNamespace()) is None
