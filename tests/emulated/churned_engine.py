"""An engine on the emulated device whose users hang up, abort and come in crowds.

It keeps KV in pages of 16 tokens, of which there are few, and runs under all of SGLang's own checks
of memory: after every step, of each page, and when idle.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import time
import urllib.request
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
from governor_bench.servers import Controller, EmulatedEngine

PAGE_TOKENS = 16
CHUNK_TOKENS = 128
KV_TOKENS = 4096
PROFILE = {
    "name": "quick",
    "source": "made up for this test",
    "measured": False,
    "fixed_s": 0.002,
    "row_s": 1e-5,
    "context_token_s": 1e-8,
    "prefill_token_s": 1e-5,
    "draft_token_s": 0,
    "kv_tokens": KV_TOKENS,
}
STRICT = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1",
}
FLUSH_WITHIN_S = 60


def churned_engine(
    folder: Path, *, overlap: bool, name: str = "", log_name: str = "engine.log"
) -> EmulatedEngine:
    """Governed by whoever listens at ``controller.sock`` in ``folder``, under ``name`` or its own
    choice."""
    profile = folder / "quick.json"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    return EmulatedEngine(
        folder,
        profile,
        overlap=overlap,
        governor={"ENDPOINT": f"ipc://{folder}/controller.sock"}
        | ({"ENGINE_ID": name} if name else {}),
        arguments=(
            *("--enable-metrics", "--page-size", str(PAGE_TOKENS)),
            *("--chunked-prefill-size", str(CHUNK_TOKENS)),
            # Rows are let in that will not fit for long, whatever the pace of their arrival.
            *("--schedule-conservativeness", "0.1"),
        ),
        environment=STRICT,
        log_name=log_name,
    )


def hang_up(url: str, ids: list[int], tokens: int, rng: Random) -> None:
    """Ask for eight streamed samples, read a little, and leave without a word."""
    address = urlsplit(url)
    body = json.dumps(
        {
            "input_ids": ids,
            "sampling_params": {"n": 8, "temperature": 0, "max_new_tokens": tokens},
            "stream": True,
        }
    ).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: {address.netloc}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        for _ in range(rng.randint(0, 6)):
            if not connection.recv(rng.choice((256, 4096))):
                raise ConnectionError("the engine hung up first")


def abort(url: str, rid: str = "", *, everybody: bool = False) -> None:
    request = urllib.request.Request(
        f"{url}/abort_request",
        data=json.dumps({"rid": rid, "abort_all": everybody}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200


def flush(url: str) -> None:
    """Empty the prefix cache. SGLang refuses while anybody runs or waits."""
    request = urllib.request.Request(f"{url}/flush_cache?timeout={FLUSH_WITHIN_S}", method="POST")
    with urllib.request.urlopen(request, timeout=FLUSH_WITHIN_S + 10) as reply:
        assert reply.status == 200


def load_of(url: str) -> dict[str, Any]:
    """What SGLang says of the engine's load, once it is up to date."""
    time.sleep(1.2)
    with urllib.request.urlopen(f"{url}/v1/loads", timeout=30) as reply:
        (load,) = json.load(reply)["loads"]
    assert isinstance(load, dict)
    return load


class Footprint:
    """Memory and open files of an engine's processes and of its controller."""

    def __init__(self, engine: EmulatedEngine, controller: Controller) -> None:
        launcher = psutil.Process(engine.pid)
        self._processes = {"launcher": launcher, "controller": psutil.Process(controller.pid)}
        for child in launcher.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "scheduler" in "".join((child.name(), *child.cmdline())):
                    self._processes["scheduler"] = child
        assert len(self._processes) == 3, self._processes
        self._memory: dict[str, list[int]] = {name: [] for name in self._processes}
        self._files: dict[str, list[int]] = {name: [] for name in self._processes}

    def read(self) -> None:
        for name, process in self._processes.items():
            self._memory[name].append(process.memory_info().rss)
            self._files[name].append(process.num_fds())

    def growth(self) -> dict[str, float]:
        """From the middle third of the readings to the last, in percent of memory."""
        return {name: round(_growth(read, share=True), 2) for name, read in self._memory.items()}

    def more_files(self) -> dict[str, float]:
        return {name: _growth(read, share=False) for name, read in self._files.items()}


def _growth(read: list[int], *, share: bool) -> float:
    third = len(read) // 3
    middle, last = statistics.median(read[third:-third]), statistics.median(read[-third:])
    return 100.0 * (last / middle - 1.0) if share else last - middle
