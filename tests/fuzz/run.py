"""Fuzz every target: ``python tests/fuzz/run.py --minutes 10``. Needs the extra ``fuzz``.

Each gets an equal share of the time, in a process of its own. What is found is written to
``build/fuzz/<target>/``; with its mending it belongs into ``tests/fuzz/corpus/<target>/``.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec
from governor_bench.processes import Supervised
from seeds import seeds
from targets import TARGETS

HERE = Path(__file__).parent
BUILD = Path("build/fuzz")
LONGEST_INPUT = 4096
HANG_S = 20
MOST_MIB = 2048
EXECUTIONS = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")


class Result(msgspec.Struct, frozen=True):
    """What came of one target."""

    target: str
    seconds: float
    executions: int
    found: bool


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.01), default=10.0, show_default=True)
@click.option("--target", "names", multiple=True, type=click.Choice(sorted(TARGETS)))
def run(minutes: float, names: tuple[str, ...]) -> None:
    """Fuzz; exit status 1 if anything was found."""
    chosen = names or tuple(TARGETS)
    seconds = max(1, round(60 * minutes / len(chosen)))
    results = []
    for name in chosen:
        results.append(fuzz(name, seconds))
        click.echo(
            f"{name:20} {results[-1].executions:9} executions  "
            f"{'FOUND SOMETHING, see ' + str(BUILD / name) if results[-1].found else 'ok'}"
        )
    BUILD.joinpath("results.json").write_bytes(msgspec.json.encode(results))
    if any(result.found for result in results):
        raise SystemExit(1)


def fuzz(name: str, seconds: int) -> Result:
    """Fuzz one target for so long."""
    corpus, kept = BUILD / name / "corpus", HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    log = BUILD / name / "log"
    start_s = time.monotonic()
    # libFuzzer ends its process at once, and what it has put away would stay.
    with log.open("wb") as output, tempfile.TemporaryDirectory(prefix="governor-fuzz-") as scratch:
        fuzzer = Supervised(
            [
                *(sys.executable, str(HERE / "fuzz_one.py"), name, str(corpus)),
                *([str(kept)] if kept.is_dir() else []),
                *(f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}"),
                *(f"-timeout={HANG_S}", f"-rss_limit_mb={MOST_MIB}"),
                *(f"-artifact_prefix={BUILD / name}/", "-print_final_stats=1", "-close_fd_mask=1"),
            ],
            output,
            subprocess.STDOUT,
            {**os.environ, "TMPDIR": scratch},
        )
        status = fuzzer.process.wait()
        fuzzer.end()
    told = EXECUTIONS.search(log.read_bytes())
    return Result(name, time.monotonic() - start_s, int(told[1]) if told else 0, status != 0)


if __name__ == "__main__":
    run()
