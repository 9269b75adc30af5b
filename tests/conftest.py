"""How `make test` shares the suite out between workers. Plain `pytest` runs without any."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = {
    f"tests/server/test_{name}.py": "normal_engine"
    for name in (
        "clients",
        "equality",
        "faults",
        "load_reports",
        "request_fields",
        "request_headers",
        "upgrade",
        "weight_update",
    )
} | {
    f"tests/emulated/test_{name}_on_emulated_engine.py": "cramped"
    for name in ("faults", "prefill", "retraction")
}
"""Files that share an engine, which so starts once; any other file is a group of its own."""


def _group(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


class GroupScheduling(LoadFileScheduling):
    """One worker for a group. (xdist's own groups, by mark, are lost under pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, put the long groups first, and what shares an engine one after another.

    Groups with engines take minutes, roughly as many as they have tests of engines; the many short
    files that follow fill what time is left in either worker.
    """
    if hasattr(config, "workerinput"):
        of_engines = [item for item in items if item.get_closest_marker("engine")]
        lengths = Counter(_group(item.nodeid) for item in of_engines)
        items.sort(key=lambda item: (-lengths[_group(item.nodeid)], _group(item.nodeid)))
