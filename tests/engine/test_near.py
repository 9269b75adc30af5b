"""Near misses of Governor's field names, and the names that are somebody else's."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_patch.fields import FIELDS
from sglang_patch.near import MAX_CHARS, near

OTHER_WORDS = (
    *("priority", "group", "role", "tokens", "slo", "ms", "max", "thinking", "budget", "user"),
    *("tenant", "id", "name", "session", "trace", "plan", "step", "mode", "weight", "target"),
    *("latency", "cost", "limit", "e2e", "itl", "class", "parent", "run", "tag", "level"),
)
"""Words of names that clients have of their own; none that a field of Governor begins with."""


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("tpot_slo", "tpot_slo_ms"),
        ("branch_grp", "branch_group"),
        ("ttft_ms", "ttft_slo_ms"),
        ("tpotSloMs", "tpot_slo_ms"),
        ("TPOT_SLO_MS", "tpot_slo_ms"),
        ("tpot-slo-ms", "tpot_slo_ms"),
        ("slo_tpot_ms", "tpot_slo_ms"),
        ("tpot_slo_s", "tpot_slo_ms"),
        ("branchGroup", "branch_group"),
        ("branch_rol", "branch_role"),
        ("expected_token", "expected_tokens"),
        ("protetced", "protected"),
        ("Protected", "protected"),
    ],
)
def test_a_near_miss_names_the_field_that_was_meant(name: str, field: str) -> None:
    assert near(name) == field


@pytest.mark.parametrize(
    "name",
    [
        *("priority_group", "branch", "branches", "group", "role", "projected", "unprotected"),
        *("max_expected_tokens", "thinking_budget", "ngram_size", "__req__", "slo_ms", "tokens"),
        *("e2e_slo_ms", "itl_slo_ms", "", "___", "branch_group_of_my_own", "custom_params"),
        *("branch_id", "sampling_params"),
    ],
)
def test_a_clients_own_name_is_none(name: str) -> None:
    assert near(name) is None


@given(st.lists(st.sampled_from(OTHER_WORDS), min_size=1, max_size=4).map("_".join))
def test_names_made_of_other_words_are_never_near(name: str) -> None:
    assert near(name) is None


@given(st.text(max_size=40))
def test_any_other_text_is_never_near_unless_it_looks_like_a_field(name: str) -> None:
    """What is near has most of the field's letters."""
    field = near(name)
    if field is not None:
        shared = set(name.lower()) & set(field)
        assert len(shared) >= 0.6 * len(set(field))


@given(st.sampled_from(FIELDS), st.data())
def test_a_letter_left_out_doubled_or_swapped_is_a_near_miss(
    field: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(field) - 2))
    misses = {
        field[:at] + field[at + 1 :],
        field[:at] + field[at] + field[at:],
        field[:at] + field[at + 1] + field[at] + field[at + 2 :],
    }
    for miss in misses - set(FIELDS):
        assert near(miss) == field


@given(st.text(min_size=MAX_CHARS + 1))
def test_long_names_are_never_near(name: str) -> None:
    assert near(name) is None


def test_no_field_is_a_near_miss() -> None:
    assert not [name for name in FIELDS if near(name)]
    words = [field.split("_") for field in FIELDS]
    for parts in words:
        for order in permutations(parts):
            assert near("_".join(order)) in (None, "_".join(parts))


def test_no_name_of_sglangs_own_is_near() -> None:
    """Top-level fields of every route, and sampling parameters: they must not be refused."""
    from sglang.srt.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    from sglang.srt.entrypoints.ollama.protocol import OllamaChatRequest, OllamaGenerateRequest
    from sglang.srt.entrypoints.openai.protocol import (
        ChatCompletionRequest,
        CompletionRequest,
        ResponsesRequest,
    )
    from sglang.srt.managers.io_struct import GenerateReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    names = {field.name for field in dataclasses.fields(GenerateReqInput)}
    names |= set(SamplingParams.__struct_fields__)
    for model in (
        AnthropicMessagesRequest,
        ChatCompletionRequest,
        CompletionRequest,
        OllamaChatRequest,
        OllamaGenerateRequest,
        ResponsesRequest,
    ):
        names |= set(model.model_fields)
    assert len(names) > 100
    assert not {name: near(name) for name in names if near(name)}
    assert not names & set(FIELDS)
