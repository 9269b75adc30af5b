"""Commands that this package adds to ``governor``."""

from governor_bench.commands.bench import bench
from governor_bench.commands.check import check, doctor
from governor_bench.commands.demo import demo
from governor_bench.commands.eval import evaluate
from governor_bench.commands.gpu import gpu
from governor_bench.commands.profile import profile
from governor_bench.commands.simulate import simulate
from governor_bench.commands.up import up

__all__ = ["bench", "check", "demo", "doctor", "evaluate", "gpu", "profile", "simulate", "up"]
