"""`make test-sglang-kits`: all kits, on stock and governed engines, in both loops.

The name keeps it out of `make test`, which runs `test_some_kits.py`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest
from kit_checks import check_kit
from kit_engines import KitEngine, Stage
from kit_table import SERVERS, Kit, Server

pytestmark = pytest.mark.engine

VERSION = importlib.metadata.version("sglang")
RUNS = [
    pytest.param(
        server, kit, Stage(governed, overlap), id=f"{kit.name}-{server.name}-{loop}-{role}"
    )
    for loop, overlap in (("normal", False), ("overlap", True))
    for server in SERVERS
    if VERSION in server.versions and not (server.drafts and overlap)
    for role, governed in (("stock", False), ("governed", True))
    for kit in server.kits
    if VERSION in kit.versions
]


@pytest.mark.parametrize(("server", "kit", "stage"), RUNS)
def test_kit(
    server: Server,
    kit: Kit,
    stage: Stage,
    engines: Callable[[Server, Stage], KitEngine],
    record_property: Callable[[str, Any], None],
) -> None:
    check_kit(server, kit, engines(server, stage), VERSION, record_property)
