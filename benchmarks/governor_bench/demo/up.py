"""``governor up`` / ``make serve``: engine and controller, left running for somebody to try."""

from __future__ import annotations

import signal
import threading

from rich.console import Console

from governor_bench.processes import workspace
from governor_bench.servers import Controller, CpuEngine
from governor_bench.tiny_models import tiny_models

EXAMPLES = """\
[bold]Governed SGLang is up[/bold] (Ctrl-C ends both)

engine      {engine}
controller  {controller}   policy: taper_plus

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

governor status --controller {controller}
governor policy set eager --controller {controller}
"""


def run() -> None:
    """Start both, print what to try, wait for SIGINT or SIGTERM, stop both."""
    console = Console()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    model = tiny_models().target
    with (
        workspace() as scratch,
        Controller(scratch) as controller,
        CpuEngine(
            scratch,
            model,
            governor={"ENDPOINT": controller.endpoint},
            arguments=["--enable-metrics", "--served-model-name", "tiny", "--sleep-on-idle"],
        ) as engine,
    ):
        with console.status("starting the controller and the engine (about half a minute)"):
            controller.wait_ready()
            engine.wait_ready()
        console.print(EXAMPLES.format(engine=engine.url, controller=controller.url), soft_wrap=True)
        while not stopped.wait(1.0):
            for process in (controller, engine):
                if not process.is_running():
                    console.print(f"ended by itself, see its log:\n{process.log_tail()}")
                    return
