"""Engines for kits, and the table of what came of them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit_engines import KitEngine, Stage, kit_engine
from kit_report import CELL, table
from kit_table import Server

REPORTS = Path(__file__).parents[2] / "build" / "kits"

Engines = Callable[[Server, Stage], KitEngine]


@pytest.fixture(scope="session")
def sglang_version() -> str:
    return importlib.metadata.version("sglang")


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """The engine for a server and a stage. One runs at a time; one that ended starts anew."""
    running = contextlib.ExitStack()
    now: list[tuple[Server, Stage, KitEngine]] = []

    def engine(server: Server, stage: Stage) -> KitEngine:
        if now and now[0][:2] == (server, stage) and now[0][2].engine.is_running():
            return now[0][2]
        now.clear()
        running.close()
        now.append((server, stage, running.enter_context(kit_engine(server, stage))))
        return now[0][2]

    with running:
        yield engine


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of kits and configurations, and write it to ``build/kits``."""
    cells = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == CELL
    ]
    if not cells:
        return
    version = importlib.metadata.version("sglang")
    text = table(version, cells)
    REPORTS.mkdir(parents=True, exist_ok=True)
    path = REPORTS / f"sglang-{re.sub('[^0-9a-z.]', '-', version)}.md"
    path.write_text(text)
    terminalreporter.section(f"SGLang's own kits ({path})")
    terminalreporter.write(text)
