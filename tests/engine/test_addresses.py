"""What an engine is called, and where it says that it is."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from sglang_patch.seams import addresses

HOST = os.uname().nodename


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(addresses._VARIABLE, "")


def as_a_server(host: str = "0.0.0.0", certificate: str | None = None) -> None:  # noqa: S104
    """As SGLang's HTTP server does on its way to ``check_server_args``."""
    arguments = SimpleNamespace(host=host, port=30000, ssl_certfile=certificate)
    space = {"__name__": "sglang.srt.entrypoints.http_server", "note": addresses.note_address}
    exec("def launch_server(arguments): note(arguments)", space)  # noqa: S102
    space["launch_server"](arguments)


@pytest.mark.parametrize(
    ("host", "certificate", "url"),
    [
        ("0.0.0.0", None, f"http://{HOST}:30000"),  # noqa: S104
        ("127.0.0.1", None, "http://127.0.0.1:30000"),
        ("::1", "cert.pem", "https://[::1]:30000"),
    ],
)
def test_an_http_server_says_where_it_is(host: str, certificate: str | None, url: str) -> None:
    as_a_server(host, certificate)
    assert addresses.url() == url


def test_a_server_is_called_by_host_and_port_and_so_is_the_next_on_that_port() -> None:
    as_a_server()
    assert addresses.engine_id("", 1) == f"{HOST}-30000-dp1"


def test_a_program_that_runs_an_engine_is_called_by_its_process() -> None:
    addresses.note_address(SimpleNamespace(host="127.0.0.1", port=30000, ssl_certfile=None))
    assert addresses.url() == ""
    assert addresses.engine_id("", 0) == f"{HOST}-{os.getppid()}-dp0"


def test_a_configured_name_wins() -> None:
    as_a_server()
    assert addresses.engine_id("gpu", 0) == "gpu-dp0"
