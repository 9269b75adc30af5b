"""An engine's own controller: where it listens, and what is said when it does not start."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from sglang_patch import embedded
from sglang_patch.config import EMBEDDED, EngineConfig
from sglang_patch.embedded import EmbeddedController
from sglang_patch.errors import ConfigurationError

MANY_TRIES = 3000


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def wait_until_served(controller: EmbeddedController, but_not_by: int = 0) -> None:
    for _ in range(MANY_TRIES):
        if controller.pid != but_not_by:
            try:
                with urllib.request.urlopen(f"http://{controller.http}/readyz", timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                pass
        time.sleep(0.02)
    pytest.fail("nobody serves there")


def test_a_controller_that_took_a_free_port_takes_it_again_after_a_crash(taken: int) -> None:
    controller = EmbeddedController(
        EngineConfig(endpoint=EMBEDDED, controller_http=f"127.0.0.1:{taken}", policy="off")
    )
    try:
        assert controller.http != f"127.0.0.1:{taken}"
        wait_until_served(controller)
        controller.supervise()
        first = controller.pid
        os.kill(first, signal.SIGKILL)
        wait_until_served(controller, but_not_by=first)
    finally:
        controller.stop()


def test_why_an_embedded_controller_does_not_start_is_said_last() -> None:
    settings = EngineConfig(endpoint=EMBEDDED, controller_http="127.0.0.1:0", policy="tapir")
    with pytest.raises(ConfigurationError) as error:
        embedded.start(settings)
    text = str(error.value)
    assert "\n" not in text
    assert "GOVERNOR_POLICY" in text
    assert "no policy 'tapir'; choose one of off, cap, eager" in text.rpartition(": ")[2]


@pytest.mark.parametrize(
    "address",
    ["nowhere", "127.0.0.1:many", "127.0.0.1:99999999", "[::1]:x", "no.such.host.invalid:0"],
)
def test_an_address_that_is_none_is_left_to_the_controller_to_refuse(address: str) -> None:
    assert embedded._address_to_keep(address) == address


def test_any_port_is_no_port_that_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    chosen = embedded._address_to_keep("127.0.0.1:0")
    assert int(chosen.rpartition(":")[2]) > 0
    assert chosen in caplog.text
    assert "taken" not in caplog.text


def test_a_port_that_is_free_is_kept(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert embedded._address_to_keep(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    assert embedded._address_to_keep(f"127.0.0.1:{taken}") != f"127.0.0.1:{taken}"
