"""Request fields over HTTP: what works, and what a client is told when it does not."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

import msgspec
import pytest
from engines import GovernedEngine
from openai import BadRequestError, OpenAI

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
    ({"anything": {"deeply": {"nested": 1}}}, "anything"),
    ({"anything": [[1]]}, "anything"),
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


def test_bad_field_of_a_streaming_request_is_named_in_the_stream(
    normal_engine: GovernedEngine,
) -> None:
    sampling = {"max_new_tokens": 2, "custom_params": {"tpot_slo_ms": 0}}
    body = {"input_ids": [5], "sampling_params": sampling, "stream": True}
    _, text = post(normal_engine.url, "/generate", body)
    assert "custom_params.tpot_slo_ms" in text
    assert "400" in text


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
