"""``governor up`` with a real engine: where it was told to be, under grammars, and killed.

The tests run in this order: the last one kills what the others use.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engines import assert_sound_at_idle, until
from generating import generate, prompts
from governor_bench.engine_metrics import read_counters
from governor_bench.processes import free_port, get_json
from governor_bench.servers import CpuEngine
from leftovers import Starter, starter

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {"size": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["size", "ok"],
    "additionalProperties": False,
}
BRANCHES = 4
GRAMMARS: dict[str, tuple[dict[str, Any], re.Pattern[str]]] = {
    "json_schema": ({"json_schema": json.dumps(SCHEMA)}, re.compile(r'\s*\{\s*"size"')),
    "regex": ({"regex": "[a-z]{4}-[0-9]{6} (yes|no)"}, re.compile("[a-z]{4}-[0-9]{6} (yes|no)$")),
    "ebnf": ({"ebnf": 'root ::= "left" | "right"'}, re.compile("(left|right)$")),
}
"""Sampling parameters, and what the text must match."""


@dataclass
class Up:
    """A running ``governor up``."""

    starter: Starter
    url: str
    controller_url: str
    logs: Path


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Up]:
    """Half of all branches are parked in every step. (`model`: trained before, if need be.)"""
    folder = tmp_path_factory.mktemp("up")
    port, controller_port = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "controller_service", "up", "--port", str(port)),
        *("--controller-port", str(controller_port), "--policy", "random:0.5"),
        *("--log-dir", str(folder / "logs"), "--", "--max-running-requests", "24"),
    ]
    with starter(command, folder) as started:
        started.wait_for(lambda: "Governed SGLang is up" in started.said(), "it did not start")
        yield Up(
            started,
            f"http://127.0.0.1:{port}",
            f"http://127.0.0.1:{controller_port}",
            folder / "logs",
        )


def test_it_is_where_it_was_told_to_be_and_as_it_was_told(up: Up) -> None:
    said = up.starter.said()
    assert f"policy set eager --controller {up.controller_url}" in said
    assert up.url in said and str(up.logs) in said
    info = get_json(f"{up.url}/get_server_info")
    assert info["max_running_requests"] == 24
    assert info["grammar_backend"] == "llguidance", "the platform's choice"
    assert get_json(f"{up.controller_url}/v1/status")["policy"] == "random:0.5"
    assert (up.logs / "engine.log").stat().st_size and (up.logs / "controller.log").exists()
    assert (up.logs / "decisions").is_dir()


def tokens_of(answer: Any) -> list[list[int]]:
    return [one["output_ids"] for one in (answer if isinstance(answer, list) else [answer])]


@pytest.mark.parametrize("kind", GRAMMARS)
@pytest.mark.parametrize("branches", [1, BRANCHES])
def test_text_under_a_grammar_keeps_to_it_and_is_that_of_stock(
    up: Up, stock_engine: CpuEngine, kind: str, branches: int
) -> None:
    """Beside plain requests whose branches are parked all along."""
    grammar, expected = GRAMMARS[kind]
    before = read_counters(up.url)
    plain = prompts()[:3]

    def ask(url: str) -> list[list[list[int]]]:
        with ThreadPoolExecutor(len(plain) + 1) as pool:
            beside = [
                pool.submit(generate, url, prompt, 60, sampling={"n": BRANCHES}) for prompt in plain
            ]
            constrained = generate(
                url, "def size_of(path):", 40, sampling={**grammar, "n": branches}
            )
            for one in constrained if branches > 1 else [constrained]:
                assert expected.match(one["text"]), one["text"]
            return [tokens_of(constrained), *(tokens_of(item.result()) for item in beside)]

    assert ask(up.url) == ask(stock_engine.url)
    until(
        lambda: read_counters(up.url).since(before).parked_row_steps > 0,
        "nothing was parked beside the grammar",
    )
    assert_sound_at_idle(up.url)


def steps_after(up: Up, number: int) -> list[dict[str, Any]]:
    steps = get_json(f"{up.controller_url}/v1/steps?last=1000")["steps"]
    return [step for step in steps if step["step"] > number]


def test_branches_under_a_grammar_are_never_parked(up: Up) -> None:
    """They are opportunistic, half of which are parked in every step, and run alone here."""
    last = steps_after(up, -1)[-1]["step"]
    grammar, _ = GRAMMARS["regex"]
    generate(up.url, "def size_of(path):", 40, sampling={**grammar, "n": BRANCHES})
    until(lambda: len(steps_after(up, last)) > 5, "the controller was told of no step")
    alone = steps_after(up, last)
    assert max(step["rows"] for step in alone) == BRANCHES
    assert all(step["parked_rows"] == 0 for step in alone)


def test_response_format_of_the_openai_route(up: Up, stock_engine: CpuEngine) -> None:
    body = {
        "model": "tiny",
        "n": BRANCHES,
        "max_tokens": 48,
        "temperature": 0,
        "messages": [{"role": "user", "content": "How large?"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    }

    def ask(url: str) -> list[str]:
        request = urllib.request.Request(
            f"{url}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            return [choice["message"]["content"] for choice in json.load(reply)["choices"]]

    texts = ask(up.url)
    assert len(texts) == BRANCHES
    assert all(text.lstrip().startswith("{") for text in texts)
    assert texts == ask(stock_engine.url)


def test_the_commands_that_it_prints_work_when_pasted(up: Up) -> None:
    printed = re.findall(r"^\S*governor .*$", up.starter.said(), re.MULTILINE)
    assert [line.split()[1] for line in printed] == ["status", "policy", "log"]

    def works(line: str) -> bool:
        return subprocess.run(line, shell=True, capture_output=True, check=False).returncode == 0  # noqa: S602

    assert works(printed[0]), printed[0]
    until(lambda: works(printed[2]), f"no decision was logged: {printed[2]}")  # seconds later


def test_killed_without_a_chance_to_clean_up_it_leaves_nothing(up: Up) -> None:
    assert up.starter.runs("sglang.launch_server") and up.starter.runs("controller_service serve")
    up.starter.assert_nothing_is_left_after(signal.SIGKILL)
