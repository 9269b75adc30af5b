"""What a run of a kit must show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import kit_checks
import pytest
from kit_engines import KitEngine, Stage
from kit_report import table
from kit_runs import KitResult
from kit_table import Kit, Server

KNOWN = "BasicDecodeCorrectnessMixin.test_basic_math"
KIT = Kit("basic_decode_correctness_kit", "BasicDecodeCorrectnessMixin", crowded=True)
SERVER = Server("plain", (KIT,))
TESTS = ("test_basic_math", "test_max_token_one")


def check(
    monkeypatch: pytest.MonkeyPatch, *, governed: bool, failed: tuple[str, ...], parked: int
) -> str:
    """The table after a run that came out so."""
    result = KitResult(TESTS, {test: f"trace of {test}" for test in failed}, parked)
    monkeypatch.setattr(kit_checks, "run_kit", lambda kit, target: result)
    monkeypatch.setattr(kit_checks, "assert_serves", lambda target: None)
    cells: list[dict[str, object]] = []
    engine = KitEngine(SimpleNamespace(), Path(), Stage(governed, overlap=False))
    kit_checks.check_kit(SERVER, KIT, engine, "0.5.17", lambda _, cell: cells.append(cell))
    return table("0.5.17", cells)


def test_a_listed_failure_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    text = check(monkeypatch, governed=True, failed=("test_basic_math",), parked=7)
    assert "| BasicDecodeCorrectnessMixin | plain | 1 of 2; 1 as on stock; p 7 |" in text
    assert f"- {KNOWN}: the tiny model" in text


@pytest.mark.parametrize("governed", [False, True])
def test_any_other_failure_fails(monkeypatch: pytest.MonkeyPatch, governed: bool) -> None:
    with pytest.raises(AssertionError, match="trace of test_max_token_one"):
        check(monkeypatch, governed=governed, failed=TESTS, parked=7)


def test_a_listed_test_that_passes_on_stock_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match=r"test_basic_math.* passed on stock"):
        check(monkeypatch, governed=False, failed=(), parked=0)


def test_a_governed_run_that_parked_nothing_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="void"):
        check(monkeypatch, governed=True, failed=("test_basic_math",), parked=0)
