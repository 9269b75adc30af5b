"""The seam at SGLang's HTTP server: its own app with its own routes, and no engine behind it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sglang.srt.entrypoints import http_server
from starlette.testclient import TestClient

from sglang_patch.placing import PLACES
from sglang_patch.requests import FieldRules
from sglang_patch.seams import http, tokenizer
from sglang_patch.seams.hooks import is_applied

BAD = {"x-governor-tpot-slo-ms": "fast"}
ROUTES = sorted(PLACES)


class Manager:
    """Stands for SGLang's tokenizer manager: answers with the fields of the headers."""

    def create_abort_task(self, obj: Any) -> None:
        return None

    def generate_request(self, obj: Any, request: Any = None) -> AsyncIterator[dict[str, Any]]:
        return tokenizer.around_generate_request(answers, self, obj, request)


async def answers(manager: Manager, obj: Any, request: Any) -> AsyncIterator[dict[str, Any]]:
    yield {"fields": dict(tokenizer._header_fields.get())}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    original = http_server.ORJSONRequest.json

    async def hooked(request: Any) -> Any:
        return await http.around_json(original, request)

    monkeypatch.setattr(http_server.ORJSONRequest, "json", hooked)
    monkeypatch.setattr(
        http_server, "_global_state", SimpleNamespace(tokenizer_manager=Manager()), raising=False
    )
    yield TestClient(http_server.app, raise_server_exceptions=False)


def test_every_route_that_generates_is_known_to_this_sglang() -> None:
    paths = {getattr(route, "path", "") for route in http_server.app.routes}
    assert set(ROUTES) <= paths


@pytest.mark.parametrize("stream", [False, True], ids=["at once", "stream"])
@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_header_is_a_plain_400_on_every_route(
    client: TestClient, route: str, stream: bool
) -> None:
    reply = client.post(route, json={"stream": stream}, headers=BAD)
    assert reply.status_code == 400
    assert "header x-governor-tpot-slo-ms: must be a number, not 'fast'" in reply.text


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_that_sglang_would_drop_is_a_plain_400_on_every_route(
    client: TestClient, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = client.post(route, json={"stream": True, "tpot_slo": 40})
    assert reply.status_code == 400
    assert "tpot_slo: did you mean 'tpot_slo_ms'" in reply.text
    monkeypatch.setattr(http, "field_rules", lambda: FieldRules(check_names=False))
    assert "did you mean" not in client.post(route, json={"tpot_slo": 40}).text


@pytest.mark.parametrize("route", ROUTES)
def test_routes_are_known_behind_a_prefix_of_a_proxy(client: TestClient, route: str) -> None:
    """``--fastapi-root-path``: the server sees the prefix as a part of the path."""
    behind = TestClient(client.app, root_path="/prefix", raise_server_exceptions=False)
    reply = behind.post("/prefix" + route, json={"tpot_slo": 40})
    assert "tpot_slo: did you mean 'tpot_slo_ms'" in reply.text


@pytest.mark.parametrize("stream", [False, True], ids=["at once", "stream"])
def test_headers_are_at_hand_where_the_request_is_tokenized(
    client: TestClient, stream: bool
) -> None:
    body = {"text": "a", "stream": stream}
    reply = client.post("/generate", json=body, headers={"x-slo-tpot-ms": "20"})
    assert reply.status_code == 200, reply.text
    assert '"tpot_slo_ms":20.0' in reply.text
    assert '"fields":{}' in client.post("/generate", json=body).text


def test_the_body_is_parsed_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    real = http_server.orjson.loads
    monkeypatch.setattr(
        http_server, "orjson", SimpleNamespace(loads=lambda text: parsed.append(text) or real(text))
    )
    assert client.post("/generate", json={"text": "a"}).status_code == 200
    assert len(parsed) == 1


def test_only_a_process_that_serves_http_is_hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(http, "register_all", done.append)
    monkeypatch.setattr(http, "apply", lambda: done.append("applied"))
    with monkeypatch.context() as elsewhere:
        elsewhere.delitem(sys.modules, http.MODULE)
        http.hook_if_serving()
    assert done == []
    http.hook_if_serving()
    assert done == [http.HOOKS, "applied"]
    assert not is_applied(http.HOOKS[0].target, http.around_json)
