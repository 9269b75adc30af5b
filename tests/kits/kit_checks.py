"""One kit on one engine, and what must hold of it."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

from kit_engines import KitEngine
from kit_report import CELL, cell
from kit_runs import run_kit
from kit_table import BY_CHANCE, FAILS_ON_STOCK, Kit, Server


def check_kit(
    server: Server,
    kit: Kit,
    target: KitEngine,
    version: str,
    record: Callable[[str, Any], None],
) -> None:
    """Run a kit; whatever is not listed as failing on stock must pass.

    On a stock engine, whatever is listed must fail, so that the list says what is. On a governed
    engine rows must have been parked, or the run says nothing.
    """
    result = run_kit(kit, target)
    always = result.listed(FAILS_ON_STOCK, kit, version)
    known = always | result.listed(BY_CHANCE, kit, version)
    record(CELL, cell(server, kit, target.stage, result, known))
    unexpected = {test: trace for test, trace in result.failed.items() if test not in known}
    assert not unexpected, f"{sorted(unexpected)} failed:\n\n" + "\n".join(unexpected.values())
    if not target.stage.governed:
        passed = sorted(set(always) - set(result.failed))
        assert not passed, f"{passed} passed on stock: take them off FAILS_ON_STOCK"
    if target.stage.governed and not kit.alone:
        assert result.parked_row_steps > 0, "void: nothing was parked while the kit ran"
    assert_serves(target)


def assert_serves(target: KitEngine) -> None:
    """The engine is there and answers. Idle, it has checked its pools, and ends if they leak."""
    assert target.engine.is_running(), f"the engine has ended:\n{target.engine.log_tail()}"
    with urllib.request.urlopen(f"{target.engine.url}/health_generate", timeout=60) as reply:
        assert reply.status == 200
