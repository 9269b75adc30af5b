"""An engine and its controller as one HTTP server: steps take a profile's time, on paper only.

One that speculates runs its steps one after another, so that its policy may change meanwhile.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from governor_profiles import StepProfile

DECODE, PREFILL = 0, 1
DRAFTED_STEP_S = 1e-3
"""Wall-clock time of a step of an engine that speculates."""
OWN_LENGTH = 1
"""What it drafts unless it is told."""


class ProfiledEngine:
    """Serves what ``governor profile`` asks of an engine and of a controller.

    Args:
        truth: how long steps take.
        draft_lengths: what it can draft; empty does not speculate.
    """

    def __init__(
        self,
        truth: StepProfile,
        *,
        max_rows: int = 16,
        max_context: int = 1024,
        draft_lengths: tuple[int, ...] = (),
    ) -> None:
        self.truth = truth
        self.policy = "taper_plus"
        self.policies: list[str] = []
        """Every policy that was set."""
        self.facts = {
            "engine_id": "engine-dp0",
            "model": "some/model",
            "sglang_version": "0.5.17",
            "tp_size": 1,
            "dp_rank": 0,
            "max_running_requests": max_rows,
            "max_total_tokens": truth.kv_tokens,
            "max_context_tokens": max_context,
            "page_size": 1,
            "chunked_prefill_tokens": 512,
            "device": "paper",
            "graph_rows": list(truth.graph_rows),
            "draft_lengths": list(draft_lengths),
            "speculative_algorithm": "EAGLE" if draft_lengths else "",
            "knobs": ["branches", "drafts"] if draft_lengths else ["branches"],
            "drafting": {"source": 0, "switch_s": 2e-4} if draft_lengths else None,
            "last_snapshot_age_s": 0.1,
        }
        self.engines = [self.facts]
        self.others = 0
        """Requests of others that the engine holds."""
        self.reports_steps = True
        self.blocks = False
        """Whether requests hang until they are aborted."""
        self.refuses = False
        self.generated: list[dict[str, Any]] = []
        self.aborted: set[str] = set()
        self.serving = threading.Event()
        self._freed = threading.Event()
        self._lock = threading.Lock()
        self._steps: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> ProfiledEngine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._freed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:  # noqa: PLR0911
        route, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        match method, route:
            case "GET", "/v1/status":
                return 200, {"policy": self.policy, "engines": self.engines}
            case "PUT", "/v1/policy":
                self.policy = body["policy"]
                self.policies.append(self.policy)
                return 200, {"policy": self.policy}
            case "GET", "/v1/steps":
                return 200, {"steps": self._steps[-int(query["last"][0]) :]}
            case "GET", "/v1/loads":
                load = {"dp_rank": 0, "num_running_reqs": self.others, "num_used_tokens": 0}
                return 200, {"loads": [load]}
            case "POST", "/generate":
                return self._generate(body)
            case "POST", "/abort_request":
                self.aborted.add(body["rid"])
                self._freed.set()
                return 200, {}
        return 404, {"error": route}

    def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.generated.append(body)
        self.serving.set()
        if self.refuses:
            return 400, {"error": "no such thing"}
        if self.blocks:
            self._freed.wait(30)
        elif self.reports_steps:
            with self._lock:
                self._run(body)
        return 200, []

    def _run(self, body: dict[str, Any]) -> None:
        prompts = [len(ids) for ids in body["input_ids"]]
        lengths = [item["max_new_tokens"] for item in body["sampling_params"]]
        self._add(PREFILL, len(prompts), sum(prompts), sum(prompts))
        said = [1] * len(prompts)
        running = [row for row, length in enumerate(lengths) if length > 1]
        while running:
            if self.facts["draft_lengths"]:
                time.sleep(DRAFTED_STEP_S)
                running = [row for row in running if body["rid"][row] not in self.aborted]
            context = sum(prompts[row] + said[row] for row in running)
            draft = self._draft_length()
            self._add(DECODE, len(running), context, 0, draft)
            for row in running:
                said[row] += 1 + (row + len(self._steps)) % (draft + 1)
            running = [row for row in running if said[row] < lengths[row]]

    def _draft_length(self) -> int:
        if not self.facts["draft_lengths"]:
            return 0
        name, _, length = self.policy.partition(":")
        return int(length) if name == "fixed_draft" else OWN_LENGTH

    def _add(self, kind: int, rows: int, context: int, prefill: int, draft: int = 0) -> None:
        self._steps.append(
            {
                "step": len(self._steps),
                "kind": kind,
                "outcome": 5,
                "rows": rows,
                "context_tokens": context,
                "prefill_tokens": prefill,
                "parked_rows": 0,
                "draft_tokens": draft * rows,
                "draft_length": draft,
                "latency_s": self.truth.step_s(rows, context, prefill, draft * rows, draft),
                "decision": None,
            }
        )


def _handler(engine: ProfiledEngine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            status, answer = engine.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client was interrupted

        do_GET = do_PUT = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
