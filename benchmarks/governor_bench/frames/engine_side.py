"""Malformed frames against a real engine's end of the wire."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import zmq
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR, decode_to_controller, encode
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Decision, Hello, Snapshot, Welcome
from rich.progress import Progress

from governor_bench.frames.drawing import SeededSource
from governor_bench.frames.judge import To
from governor_bench.frames.mutations import Mutator
from governor_bench.frames.peers import SOUND, Peer, listen, started

CHUNK = 256
PATIENCE_S = 60.0
POLL_MS = 20


class EngineRun(msgspec.Struct, frozen=True):
    """What an engine's end made of malformed frames."""

    sent: int
    refused: int
    accepted: int
    crashed: bool
    decided: int
    """Steps that were decided all the same, by valid decisions in between."""
    recovered: bool
    """Whether it was governed again when the attack was over."""
    cut: int
    skipped_valid: int
    by_kind: dict[str, int]
    rss_before_mib: float
    rss_after_mib: float
    frames_per_s: float


def attack(count: int, warm_up: int, seed: int, folder: Path, progress: Progress) -> EngineRun:
    """Send ``count`` malformed frames, and valid decisions between them.

    Args:
        warm_up: frames sent before, after which memory is taken to have its size.
    """
    mutator = Mutator(SeededSource(seed), To.ENGINE)
    kinds: Counter[str] = Counter()
    endpoint = f"ipc://{folder}/attacked.sock"
    router = _Router(endpoint)
    with started(listen, endpoint) as peer:
        before = after = seconds = 0.0
        recovered, cut = False, 0
        try:
            router.greet()
            for total, title in ((warm_up, "warming up"), (count, "against an engine's end")):
                before = _rss_mib(peer.pid)
                start_s = time.perf_counter()
                task = progress.add_task(title, total=total)
                for sent in range(0, total, CHUNK):
                    size = min(CHUNK, total - sent)
                    for _ in range(size):
                        mutant = mutator.next()
                        kinds[mutant.kind] += 1
                        router.send(mutant.frames)
                    router.answer()
                    progress.advance(task, size)
                _settle(router, peer, sum(kinds.values()))
                seconds = time.perf_counter() - start_s
            after = _rss_mib(peer.pid)
            cut = sum(router.cut() for _ in range(1 + count // 100_000))
            recovered = _recovers(router, peer)
        except (zmq.ZMQError, psutil.Error):
            recovered = False  # it reads no more, or is gone
        crashed, heard = peer.has_crashed, peer.heard()
    router.close()
    sent = sum(kinds.values())
    return EngineRun(
        sent=sent,
        refused=heard.invalid,
        accepted=max(heard.foreign, 0 if crashed else sent - heard.invalid),
        crashed=crashed,
        decided=heard.decided,
        recovered=recovered,
        cut=cut,
        skipped_valid=mutator.skipped,
        by_kind=dict(sorted(kinds.items())),
        rss_before_mib=round(before, 1),
        rss_after_mib=round(after, 1),
        frames_per_s=round(count / seconds, 1) if seconds else 0.0,
    )


class _Router:
    """A controller that answers what it is asked, and says much else."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        # Wait for an engine that reads slowly: nothing may get lost uncounted.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDTIMEO, int(PATIENCE_S * 1e3))
        self._socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1e3))
        self._socket.bind(endpoint)
        self._peer = b""

    def greet(self) -> None:
        """Wait for the engine and welcome it."""
        self._heed(self._socket.recv_multipart())

    def answer(self) -> None:
        """Heed what the engine has said meanwhile: the newest question is decided."""
        while self._socket.poll(0):
            self._heed(self._socket.recv_multipart())

    def send(self, frames: list[bytes]) -> None:
        self._socket.send_multipart([self._peer, *frames])

    def cut(self) -> bool:
        """Send a frame above the limit; whether the engine comes back after it."""
        self.send([bytes(MAX_FRAME_BYTES + 1)])
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            _, frame = self._socket.recv_multipart()
            if isinstance(decode_to_controller(frame), Hello):
                self.send([_welcome()])
                return True
        return False

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def _heed(self, parts: list[bytes]) -> None:
        self._peer = parts[0]
        message = decode_to_controller(parts[1])
        if isinstance(message, Hello):
            self.send([_welcome()])
        elif isinstance(message, Snapshot):
            decision = Decision(message.for_step, 4, b"", [], SOUND, 0.0, 0.0, 0.0, 0.0)
            self.send([encode(decision)])


def _welcome() -> bytes:
    return encode(Welcome(PROTOCOL_MAJOR, PROTOCOL_MINOR, "attacker", "0", SOUND, 4096))


def _settle(router: _Router, peer: Peer, sent: int) -> None:
    """Wait until the engine has counted as many as were sent, or stops counting."""
    seen, since_s = -1, time.monotonic()
    while (now := peer.heard().invalid) < sent:
        if now != seen:
            seen, since_s = now, time.monotonic()
        if time.monotonic() - since_s > PATIENCE_S or peer.has_crashed:
            return
        router.answer()
        time.sleep(POLL_MS / 1e3)


def _recovers(router: _Router, peer: Peer) -> bool:
    """Whether more steps are decided than before, now that only valid decisions come."""
    before, deadline_s = peer.heard().decided, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s and not peer.has_crashed:
        router.answer()
        if peer.heard().decided > before + 10:
            return True
        time.sleep(POLL_MS / 1e3)
    return False


def _rss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)
