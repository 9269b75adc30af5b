"""``governor up`` / ``make serve``: engine and controller, left running for somebody to try."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from controller_service.program import governor
from governor_bench.processes import (
    ManagedProcess,
    StartFailed,
    free_port,
    is_free,
    workspace,
)
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

ENGINE_PORT, CONTROLLER_PORT = 30_000, 9470
LOOK_EVERY_S = 1.0
EXAMPLES = """\
[bold]Governed SGLang is up[/bold] (Ctrl-C ends both)

engine      {engine}
controller  {controller}   policy: {policy}
logs        {logs}

Eight samples of one prompt; the extra ones advance when the batch can afford it:

curl -s {engine}/v1/chat/completions -H 'content-type: application/json' -d '{{
  "model": "tiny", "n": 8, "max_tokens": 64,
  "messages": [{{"role": "user", "content": "def read_text(path):"}}],
  "custom_params": {{"tpot_slo_ms": 40}}}}'

from openai import OpenAI
client = OpenAI(base_url="{engine}/v1", api_key="none")
reply = client.chat.completions.create(
    model="tiny", max_tokens=64,
    messages=[{{"role": "user", "content": "class Stack:"}}],
    extra_body={{"custom_params": {{"branch_group": "plan-1", "branch_role": "opportunistic",
                                  "tpot_slo_ms": 40}}}})
print(reply.choices[0].message.content)

{governor} status --controller {controller}
{governor} policy set eager --controller {controller}
"""
DECISIONS = "{governor} log show {folder}\n"


def run(
    port: int | None,
    controller_port: int | None,
    policy: str,
    log_dir: Path | None,
    engine_arguments: Sequence[str],
) -> None:
    """Start both, print what to try, and wait for SIGINT, SIGTERM or SIGHUP.

    Args:
        port, controller_port: of the engine, and of the controller's HTTP; None: the usual one if
            it is free, any free one otherwise.
        log_dir: for both logs and the decision log; None: no decision log.
        engine_arguments: SGLang's own, added to what is needed here.

    Raises:
        StartFailed: one of them did not start, or ended by itself; the message says why.
    """
    console = Console()
    with contextlib.suppress(KeyboardInterrupt), workspace() as scratch:
        logs = log_dir.resolve() if log_dir is not None else scratch
        decisions = logs / "decisions"
        with (
            Controller(
                scratch,
                policy=policy,
                http_port=controller_port or _usual_or_free(CONTROLLER_PORT),
                arguments=() if log_dir is None else ("--log-dir", str(decisions)),
                log_name=str(logs / "controller.log"),
            ) as controller,
            CpuEngine(
                scratch,
                tiny_models().target,
                port=port or _usual_or_free(ENGINE_PORT),
                governor={"ENDPOINT": controller.endpoint},
                arguments=[
                    *("--enable-metrics", "--served-model-name", "tiny", "--sleep-on-idle"),
                    *engine_arguments,
                ],
                log_name=str(logs / "engine.log"),
            ) as engine,
        ):
            both = {"controller": controller, "engine": engine}
            with _working(console, "starting the controller and the engine (about half a minute)"):
                for name, process in both.items():
                    _wait_ready(name, process)
            told = {"engine": engine.url, "controller": controller.url, "policy": policy}
            console.print(EXAMPLES.format(**told, logs=logs, governor=governor()), soft_wrap=True)
            if log_dir is not None:
                console.print(
                    DECISIONS.format(governor=governor(), folder=decisions), soft_wrap=True
                )
            while True:
                time.sleep(LOOK_EVERY_S)
                for name, process in both.items():
                    if not process.is_running():
                        raise StartFailed(f"the {name} ended by itself:\n{process.log_tail()}")


def _usual_or_free(port: int) -> int:
    return port if is_free(port) else free_port()


def _wait_ready(name: str, process: ManagedProcess) -> None:
    try:
        process.wait_ready()
    except StartFailed as error:
        raise StartFailed(f"the {name} {error}") from error


@contextlib.contextmanager
def _working(console: Console, what: str) -> Iterator[None]:
    """Say what goes on: on one line of a terminal, once in a pipe."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        print(what, flush=True)
        yield
