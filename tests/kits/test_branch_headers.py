"""Clients of kits send headers that they know nothing of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import aiohttp
import httpx
import pytest
import requests
from branch_headers import GROUP, ROLE, branches


class Listening(BaseHTTPRequestHandler):
    heard: list[tuple[str | None, str | None]]

    def do_POST(self) -> None:
        self.heard.append((self.headers.get(GROUP), self.headers.get(ROLE)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str | None, str | None]]]]:
    handler = type("Handler", (Listening,), {"heard": []})
    with HTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", handler.heard
        listening.shutdown()
        thread.join()


async def post_with_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as reply:
        assert reply.status == 200


def test_every_client_sends_branches_and_every_fourth_is_a_trunk(
    server: tuple[str, list[tuple[str | None, str | None]]],
) -> None:
    url, heard = server
    with branches("a kit"):
        requests.post(url, json={}, timeout=10)
        asyncio.run(post_with_aiohttp(url))
        httpx.post(url, json={}, timeout=10)
        requests.post(url, json={}, timeout=10)
    assert heard == [("a kit", "opportunistic")] * 3 + [("a kit", "trunk")]


def test_a_header_that_is_there_stays(
    server: tuple[str, list[tuple[str | None, str | None]]],
) -> None:
    url, heard = server
    with branches("a kit"):
        requests.post(url, headers={GROUP: "mine"}, timeout=10)
    assert heard == [("mine", "opportunistic")]


def test_afterwards_clients_send_nothing_of_it(
    server: tuple[str, list[tuple[str | None, str | None]]],
) -> None:
    url, heard = server
    with branches("a kit"):
        pass
    requests.post(url, timeout=10)
    asyncio.run(post_with_aiohttp(url))
    httpx.post(url, timeout=10)
    assert heard == [(None, None)] * 3
