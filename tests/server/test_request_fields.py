"""Request fields over HTTP: what works, and what a client is told when it does not."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import msgspec
import pytest
from engines import GovernedEngine
from openai import BadRequestError, OpenAI
from plan_processor import ForcePlanned

pytestmark = pytest.mark.engine


def post(url: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    request = urllib.request.Request(
        url + path,
        data=msgspec.json.encode(body),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


BAD = [
    ({"tpot_slo_ms": -1}, "tpot_slo_ms"),
    ({"ttft_slo_ms": "soon"}, "ttft_slo_ms"),
    ({"protected": "yes"}, "protected"),
    ({"expected_tokens": 0}, "expected_tokens"),
    ({"branch_group": "g", "branch_role": "boss"}, "branch_role"),
    ({"branch_role": "trunk"}, "branch_role"),
    ({"tpot_slo": 40}, "tpot_slo"),
    ({"branch_grp": "g"}, "branch_grp"),
    ({"_governor_group": "stolen"}, "_governor_group"),
]


@pytest.mark.parametrize(("params", "field"), BAD, ids=lambda value: str(value)[:40])
def test_bad_field_is_a_400_that_names_it(
    normal_engine: GovernedEngine, params: dict[str, Any], field: str
) -> None:
    sampling = {"max_new_tokens": 2, "custom_params": params}
    generate = {"input_ids": [5, 6, 7], "sampling_params": sampling}
    chat = {
        "model": "m",
        "max_tokens": 2,
        "messages": [{"role": "user", "content": "hi"}],
        "custom_params": params,
    }
    complete = {"model": "m", "max_tokens": 2, "prompt": "hi", "custom_params": params}
    for path, body in (
        ("/generate", generate),
        ("/v1/chat/completions", chat),
        ("/v1/completions", complete),
    ):
        status, text = post(normal_engine.url, path, body)
        assert status == 400, (path, text)
        assert f"custom_params.{field}" in text
    status, _ = post(normal_engine.url, "/generate", {**generate, "sampling_params": {}})
    assert status == 200


def test_bad_field_of_a_stream_is_an_error_event_on_generate_and_a_plain_400_elsewhere(
    normal_engine: GovernedEngine,
) -> None:
    bad = {"custom_params": {"tpot_slo_ms": 0}}
    sampling = {"max_new_tokens": 2, **bad}
    prompt = {"text": "hi", "sampling_params": sampling, "stream": True}
    vertex = {
        "instances": [{"text": "hi"}],
        "parameters": {"sampling_params": sampling, "stream": True},
    }
    openai = {"model": "m", "max_tokens": 2, "stream": True, **bad}
    chat = {**openai, "messages": [{"role": "user", "content": "hi"}]}
    for path, body, expected in (
        ("/generate", prompt, 200),
        ("/vertex_generate", vertex, 200),
        ("/v1/completions", {**openai, "prompt": "hi"}, 400),
        ("/v1/chat/completions", chat, 400),
        ("/invocations", chat, 400),
    ):
        status, text = post(normal_engine.url, path, body)
        assert status == expected, (path, text)
        assert "custom_params.tpot_slo_ms" in text, path
        assert text.startswith("data: ") == (expected == 200), path
        assert '"code":400' in text.replace(" ", ""), path


def test_more_samples_than_the_operator_allows_are_refused(normal_engine: GovernedEngine) -> None:
    many = {"input_ids": [5], "sampling_params": {"max_new_tokens": 2, "n": 20_000}}
    openai = {"model": "m", "max_tokens": 2, "n": 65}
    for path, body in (
        ("/generate", many),
        ("/v1/completions", {**openai, "prompt": "hi"}),
        ("/v1/chat/completions", {**openai, "messages": [{"role": "user", "content": "hi"}]}),
    ):
        status, text = post(normal_engine.url, path, body)
        assert status == 400, (path, text)
        assert "GOVERNOR_MAX_N allows at most 64" in text


def test_a_field_where_sglang_would_drop_it_is_a_400_that_says_where_it_belongs(
    normal_engine: GovernedEngine,
) -> None:
    chat = {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    for path, body, place in (
        ("/v1/chat/completions", {**chat, "tpot_slo_ms": 40}, "custom_params"),
        ("/generate", {"text": "a", "custom_params": {}}, "sampling_params.custom_params"),
        ("/v1/messages", {**chat, "custom_params": {}}, "headers x-governor-"),
    ):
        status, text = post(normal_engine.url, path, body)
        assert status == 400, (path, text)
        assert place in text, path


@pytest.mark.parametrize("n", [1, 2])
def test_nested_parameters_reach_a_custom_logit_processor(
    normal_engine: GovernedEngine, n: int
) -> None:
    """As on stock SGLang, over every route that has them."""
    params = {"plan": {"steps": [{"token": 328}], "why": [[None, {}]]}, "": "ab"}
    forced = 330
    processor = ForcePlanned.to_str()
    sampling = {"max_new_tokens": 4, "n": n, "ignore_eos": True, "custom_params": params}
    body = {"text": "hi", "sampling_params": sampling, "custom_logit_processor": processor}
    status, text = post(normal_engine.url, "/generate", body)
    assert status == 200, text
    answers = msgspec.json.decode(text)
    samples = answers if n > 1 else [answers]
    assert [sample["output_ids"] for sample in samples] == [[forced] * 4] * n
    expected = samples[0]["text"]
    openai = {
        **{"model": "m", "max_tokens": 4, "n": n, "ignore_eos": True},
        **{"custom_params": params, "custom_logit_processor": processor},
    }
    status, text = post(normal_engine.url, "/v1/completions", {**openai, "prompt": "hi"})
    assert status == 200, text
    assert [one["text"] for one in msgspec.json.decode(text)["choices"]] == [expected] * n
    chat = {**openai, "messages": [{"role": "user", "content": "hi"}]}
    status, text = post(normal_engine.url, "/v1/chat/completions", chat)
    assert status == 200, text
    contents = [one["message"]["content"] for one in msgspec.json.decode(text)["choices"]]
    assert contents == [expected] * n


def test_openai_client_tags_siblings(normal_engine: GovernedEngine) -> None:
    """Two siblings, one of them the trunk, in flight at once: the controller sees one to hold."""
    client = OpenAI(base_url=f"{normal_engine.url}/v1", api_key="none", max_retries=0)
    with normal_engine.controller("off") as controller:
        reply = client.chat.completions.create(
            model="m",
            n=4,
            max_tokens=40,
            messages=[{"role": "user", "content": "def f():"}],
            extra_body={"ignore_eos": True, "custom_params": {"tpot_slo_ms": 40}},
        )
        assert len(reply.choices) == 4
        steps = controller.steps()
        assert any(step["parked_rows"] == 3 for step in steps)
        with pytest.raises(BadRequestError, match="branch_group"):
            client.chat.completions.create(
                model="m",
                n=2,
                messages=[{"role": "user", "content": "x"}],
                extra_body={"custom_params": {"branch_group": "g"}},
            )


def test_tagged_requests_form_one_group(normal_engine: GovernedEngine) -> None:
    """Sent as one batch, so that they are in flight together."""
    sampling = [
        {
            "max_new_tokens": 40,
            "ignore_eos": True,
            "temperature": 0,
            "custom_params": {"branch_group": "plan", "branch_role": role},
        }
        for role in ("trunk", "opportunistic", "opportunistic")
    ]
    body = {"input_ids": [[5, 6], [5, 7], [5, 8]], "sampling_params": sampling}
    with normal_engine.controller("off") as controller:
        status, text = post(normal_engine.url, "/generate", body)
        assert status == 200, text
        assert any(step["parked_rows"] == 2 for step in controller.steps())
