"""Fields that stand where SGLang drops them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.errors import RequestFieldError
from sglang_patch.fields import FIELDS
from sglang_patch.placing import PLACES, check_places

CUSTOM = {"custom_params": {"tpot_slo_ms": 40, "tpot_slo": 1}}
"""What is in it is not judged here: the tokenizer's hook reads it."""


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v1/chat/completions", {"tpot_slo_ms": 40}, "^tpot_slo_ms: .* belongs in custom_params"),
        ("/v1/completions", {"tpot_slo": 40}, "^tpot_slo: did you mean 'tpot_slo_ms'"),
        ("/generate", CUSTOM, "^custom_params: .* put it in sampling_params.custom_params"),
        ("/generate", {"branch_group": "a"}, "^branch_group: .* sampling_params.custom_params"),
        (
            "/generate",
            {"sampling_params": {"tpot_slo_ms": 4}},
            "^sampling_params.tpot_slo_ms: .*sampling_params.custom_params",
        ),
        (
            "/generate",
            {"sampling_params": [{}, {"branch_grp": 4}]},
            "^sampling_params.branch_grp: did you mean",
        ),
        (
            "/v1/chat/completions",
            {"sampling_params": CUSTOM},
            "^sampling_params.custom_params: .* put it in custom_params",
        ),
        (
            "/v1/chat/completions",
            {"extra_body": CUSTOM},
            "^extra_body.custom_params: .* put it in custom_params",
        ),
        ("/v1/responses", CUSTOM, "^custom_params: .* use the headers x-governor-"),
        ("/v1/messages", {"expected_tokens": 4}, "^expected_tokens: .* headers x-governor-"),
        ("/api/chat", {"tpotSloMs": 4}, "^tpotSloMs: did you mean 'tpot_slo_ms'.* headers"),
        (
            "/vertex_generate",
            {"parameters": CUSTOM},
            "^parameters.custom_params: .* parameters.sampling_params.custom_params",
        ),
    ],
)
def test_a_misplaced_field_is_named_with_the_place_it_belongs_in(
    path: str, body: dict[str, Any], error: str
) -> None:
    with pytest.raises(RequestFieldError, match=error) as caught:
        check_places(path, body)
    assert "GOVERNOR_CHECK_FIELD_NAMES=false" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"text": "a", "sampling_params": {"n": 2, **CUSTOM}}),
        ("/generate", {"text": ["a", "b"], "sampling_params": [CUSTOM, CUSTOM]}),
        ("/vertex_generate", {"instances": [], "parameters": {"sampling_params": CUSTOM}}),
        ("/v1/completions", {"prompt": "a", **CUSTOM}),
        ("/v1/chat/completions", {"messages": [], "extra_body": {}, **CUSTOM}),
        ("/invocations", CUSTOM),
        ("/v1/responses", {"input": "a", "metadata": {"tpot_slo_ms": "4"}}),
        ("/set_internal_state", {"tpot_slo_ms": 4}),
        ("/generate", [1]),
        ("/generate", None),
        ("/generate", {"sampling_params": None}),
        ("/vertex_generate", {"parameters": "x"}),
    ],
)
def test_what_stands_in_its_place_passes(path: str, body: Any) -> None:
    check_places(path, body)


@given(
    st.sampled_from([*PLACES, "/other"]),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from([*FIELDS, "custom_params", "sampling_params", "parameters", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    ),
)
def test_any_body_is_passed_or_refused_by_name(path: str, body: object) -> None:
    try:
        check_places(path, body)
    except RequestFieldError as error:
        assert error.field in (*FIELDS, "custom_params")
