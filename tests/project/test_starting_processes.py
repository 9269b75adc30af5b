"""Processes are started in few places, each of which ends what it starts however it ends itself."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("benchmarks", "controller_service", "kernels", "profiles", "protos", "sglang_patch")
STARTS = re.compile(
    r"subprocess\.(Popen|run|call|check_call|check_output)\(|\bos\.(fork|system|posix_spawn)\b"
    r"|create_subprocess_|\bProcess\(\s*target=|ProcessPoolExecutor\("
)
PLACES = {
    "benchmarks/governor_bench/processes.py": "under the supervisor",
    "benchmarks/governor_bench/supervisor.py": "the supervisor itself",
    "benchmarks/governor_bench/decision.py": "end_with_parent",
    "benchmarks/governor_bench/engines/measure.py": "end_with_parent, in generator.py",
    "benchmarks/governor_bench/frames/peers.py": "end_with_parent",
    "controller_service/learning/child.py": "end_with_parent, in what it runs",
    "controller_service/learning/distributed.py": "end_with_parent",
    "sglang_patch/embedded.py": "--exit-with-parent",
}
"""Where processes are started, and what ends them. Any other place should use one of these."""


def test_processes_are_started_only_where_something_ends_them() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in (*ROOMS, "simulator")
        for path in (ROOT / room).rglob("*.py")
        if STARTS.search(path.read_text())
    }
    assert found == set(PLACES)
