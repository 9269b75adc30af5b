"""The engine that is profiled and the controller that governs it, over HTTP."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from controller_service.learning.model import EngineKey
from controller_service.records import STEPS_KEPT
from governor_bench.profiling.point import Limits
from governor_bench.step_records import by_number

TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 16 << 20
DRAFTS = "drafts"
"""The knob of an engine that can be told how much to draft."""

_Tokens = Annotated[int, Meta(ge=1, le=1 << 40)]


class ProfilingFailed(RuntimeError):
    """The profile cannot be measured; the message says why and what to do."""


class DraftFacts(msgspec.Struct, frozen=True):
    """How an engine drafts, by its own account."""

    switch_s: float = 0.0
    """What it takes to go from one draft length to another."""


class EngineFacts(msgspec.Struct, frozen=True):
    """What an engine told its controller of itself. Unknown fields are of no interest."""

    engine_id: str
    model: str
    sglang_version: str
    tp_size: int
    dp_rank: int
    max_running_requests: _Tokens
    max_total_tokens: _Tokens
    """KV capacity in tokens."""
    max_context_tokens: _Tokens
    page_size: _Tokens
    chunked_prefill_tokens: int
    device: str = ""
    draft_lengths: tuple[int, ...] = ()
    graph_rows: tuple[int, ...] = ()
    speculative_algorithm: str = ""
    knobs: tuple[str, ...] = ()
    drafting: DraftFacts | None = None

    @property
    def key(self) -> EngineKey:
        return EngineKey(self.model, self.device, self.tp_size, self.sglang_version)

    @property
    def speculates(self) -> bool:
        return bool(self.speculative_algorithm or self.draft_lengths)

    def limits(self, max_rows: int | None, max_context_tokens: int | None) -> Limits:
        """What may be measured, within what the operator allows.

        Raises:
            ProfilingFailed: nothing fits, or the engine speculates and cannot be kept from it.
        """
        if self.speculates and not (DRAFTS in self.knobs and 0 in self.draft_lengths):
            raise ProfilingFailed(
                f"engine {self.engine_id} speculates ({self.speculative_algorithm}) and cannot be "
                f"told to do without drafts (lengths {list(self.draft_lengths)}, knobs "
                f"{list(self.knobs)}): add 0 to the candidate_steps of its "
                "--speculative-adaptive-config, or profile it without --speculative-algorithm"
            )
        chunk = self.chunked_prefill_tokens
        # Of as many requests as may run, SGLang lets the last one wait when all come at once.
        most_rows = max(1, self.max_running_requests - 1)
        try:
            return Limits(
                max_rows=min(most_rows, max_rows or most_rows),
                max_context_tokens=min(
                    self.max_context_tokens, max_context_tokens or self.max_context_tokens
                ),
                kv_tokens=self.max_total_tokens,
                page_tokens=self.page_size,
                chunk_tokens=chunk if chunk > 0 else self.max_context_tokens,
                graph_rows=self.graph_rows,
                draft_lengths=tuple(sorted(self.draft_lengths)),
            )
        except ValueError as error:
            raise ProfilingFailed(f"engine {self.engine_id}: {error}") from None


class _Load(msgspec.Struct, frozen=True):
    dp_rank: int = 0
    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    num_used_tokens: int = 0


class _Loads(msgspec.Struct, frozen=True):
    loads: list[_Load]


class Load(msgspec.Struct, frozen=True):
    """What an engine holds right now."""

    requests: int
    """Running and waiting."""
    kv_tokens: int
    """In use; cached prefixes that nobody uses do not count."""


class Engine:
    """SGLang's own routes.

    Args:
        url: base URL.
        dp_rank: which of its replicas is meant.
    """

    def __init__(self, url: str, dp_rank: int) -> None:
        self.url = url
        self.dp_rank = dp_rank

    def load(self) -> Load:
        """
        Raises:
            ProfilingFailed: the engine does not answer.
        """
        answer = _ask(f"{self.url}/v1/loads?include=core", remedy=_NO_ENGINE)
        try:
            loads = msgspec.convert(answer, type=_Loads).loads
        except msgspec.ValidationError as error:
            raise ProfilingFailed(f"{self.url}/v1/loads: not SGLang's answer: {error}") from None
        mine = [item for item in loads if item.dp_rank == self.dp_rank]
        return Load(
            sum(item.num_running_reqs + item.num_waiting_reqs for item in mine),
            sum(item.num_used_tokens for item in mine),
        )


class ControllerApi:
    """The routes of a controller that profiling needs.

    Args:
        url: base URL.
        token: what the controller asks for before its policy is switched, if it does.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self._token = token

    def engine(self, engine_id: str) -> EngineFacts:
        """The engine of that name; without a name the only one.

        Raises:
            ProfilingFailed: there is no such engine, or it is not clear which is meant.
        """
        listed = self._status().get("engines", [])
        names = sorted({str(item.get("engine_id")) for item in listed})
        if engine_id:
            listed = [item for item in listed if item.get("engine_id") == engine_id]
        elif len(names) > 1:
            raise ProfilingFailed(
                f"the controller at {self.url} serves {', '.join(names)}: say which with --engine"
            )
        if not listed:
            known = f"it serves {', '.join(names)}" if names else "it serves none"
            raise ProfilingFailed(
                f"no engine {engine_id or 'at all'} at the controller {self.url}; {known}: "
                "start the engine with GOVERNOR_ENDPOINT set to this controller's endpoint"
            )
        # A restarted engine and its former self may both be listed for a while.
        newest = min(listed, key=lambda item: float(item.get("last_snapshot_age_s", 0.0)))
        try:
            return msgspec.convert(newest, type=EngineFacts)
        except msgspec.ValidationError as error:
            raise ProfilingFailed(
                f"{self.url}/v1/status: {error}; controller and this command must be of one version"
            ) from None

    def steps(self, engine_id: str, last: int) -> list[dict[str, Any]]:
        """The newest step records of an engine, oldest first."""
        query = f"engine={engine_id}&last={max(1, min(last, STEPS_KEPT))}"
        steps = _ask(f"{self.url}/v1/steps?{query}").get("steps")
        return [by_number(step) for step in steps] if isinstance(steps, list) else []

    def policy(self) -> str:
        return str(self._status().get("policy", ""))

    def set_policy(self, policy: str) -> None:
        _ask(f"{self.url}/v1/policy", {"policy": policy}, self._token)

    def _status(self) -> dict[str, Any]:
        return _ask(f"{self.url}/v1/status")


_NO_CONTROLLER = (
    "start one with 'governor serve' and the engine with GOVERNOR_ENDPOINT set to its endpoint, or "
    "name it with --controller"
)
_NO_ENGINE = "name an engine that serves with --url"


def _ask(
    url: str, body: Any = None, token: str = "", remedy: str = _NO_CONTROLLER
) -> dict[str, Any]:
    """GET a JSON object, or PUT one.

    Args:
        remedy: what helps where nothing answers.

    Raises:
        ProfilingFailed: nothing answers, or what does says no.
    """
    request = urllib.request.Request(  # noqa: S310 - the command has checked the scheme
        url,
        data=None if body is None else msgspec.json.encode(body),
        method="GET" if body is None else "PUT",
        headers={"content-type": "application/json"},
    )
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310 - as above
            data = reply.read(MAX_ANSWER_BYTES)
        answer: dict[str, Any] = msgspec.json.decode(data, type=dict)
    except urllib.error.HTTPError as error:
        detail = error.read(500).decode(errors="replace")
        raise ProfilingFailed(f"{url}: HTTP {error.code}: {detail}") from None
    except OSError as error:
        why = getattr(error, "reason", None) or error
        raise ProfilingFailed(f"{url} does not answer ({why}); {remedy}") from None
    except (HTTPException, msgspec.DecodeError) as error:
        raise ProfilingFailed(f"{url}: no answer in JSON ({error}); {remedy}") from None
    return answer
