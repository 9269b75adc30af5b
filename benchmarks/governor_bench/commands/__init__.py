"""Commands that this package adds to ``governor``."""

from governor_bench.commands.bench import bench
from governor_bench.commands.check import check, doctor
from governor_bench.commands.demo import demo, up

__all__ = ["bench", "check", "demo", "doctor", "up"]
