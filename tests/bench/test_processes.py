"""Starting servers: ports, and what is said when one does not start."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from governor_bench.processes import PORTS, ManagedProcess, StartFailed, free_port


def test_a_port_lies_outside_of_what_the_system_hands_to_connections() -> None:
    port = free_port()
    assert PORTS[0] <= port < PORTS[1]
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


def test_a_server_that_lives_on_without_its_port_has_failed(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        serve = (
            "import asyncio\n"
            "async def main():\n"
            "    try:\n"
            f"        await asyncio.start_server(print, '127.0.0.1', {port})\n"
            "    except OSError as error:\n"
            "        print(error, flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        )
        command = [sys.executable, "-c", serve]
        url = f"http://127.0.0.1:{port}/"
        with (
            ManagedProcess(command, tmp_path / "server.log", {}, url) as process,
            pytest.raises(StartFailed, match="another process has its port"),
        ):
            process.wait_ready(30.0)
