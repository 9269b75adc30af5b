"""Start-up: inert until configured, refusals by name, hooks that did not take, embedded mode."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from engines import until
from governor_bench.processes import StartFailed, free_port, get_json, workspace
from governor_bench.servers import CpuEngine
from plugin_processes import PluginProcesses, plugin_processes

from sglang_patch.errors import ConfigurationError
from sglang_patch.seams import versions
from sglang_patch.seams.unsupported import REFUSED, refuse_unsupported

LOAD = "from sglang.srt.plugins import load_plugins; load_plugins()\n"
REGISTERED = """
from sglang.srt.plugins.hook_registry import HookRegistry
import sys
ours = [
    target
    for target, hooks in HookRegistry._hooks.items()
    if any(hook.__module__.startswith("sglang_patch") for _, hook, _ in hooks)
]
print("HOOKED", sorted(ours))
print("LOADED", sorted(name for name in sys.modules if name.startswith("sglang_patch")))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginProcesses]:
    with plugin_processes(tmp_path_factory.mktemp("python")) as processes:
        yield processes


def test_installed_but_not_configured_registers_nothing(python: PluginProcesses) -> None:
    result = python(LOAD + REGISTERED)
    assert "HOOKED []" in result.stdout, result.stderr
    assert "seams" not in result.stdout
    assert "link" not in result.stdout


def test_configured_hooks_take_and_one_that_did_not_is_named(python: PluginProcesses) -> None:
    """Another plugin replaces a method after Governor's hook was applied."""
    check = "from sglang_patch.seams import hooks\n"
    check += (
        "hooks.require_applied('launcher'); hooks.require_applied('scheduler'); print('TOOK')\n"
    )
    steal = (
        "from sglang.srt.managers.scheduler import Scheduler\n"
        "Scheduler.update_running_batch = lambda self, batch: batch\n"
        "hooks.require_applied('scheduler')"
    )
    result = python(LOAD + REGISTERED + check + steal, GOVERNOR_ENDPOINT="ipc:///tmp/none.sock")
    assert "Scheduler.update_running_batch" in result.stdout, result.stderr
    assert "TOOK" in result.stdout, result.stderr
    assert result.returncode != 0
    assert "did not take on sglang.srt.managers.scheduler.Scheduler.update_running_batch" in (
        result.stderr
    )


def test_the_http_server_is_hooked_where_there_is_one(python: PluginProcesses) -> None:
    """In the launcher of a server. An offline engine and schedulers do not import it."""
    start = (
        "from types import SimpleNamespace\n"
        "from sglang_patch.seams import hooks, http, startup\n"
        "def started():\n"
        "    startup.after_check_server_args(None, SimpleNamespace())\n"
        "    return http.MODULE in sys.modules, http.HOOKS[0] in hooks._registered\n"
        "print('OFFLINE', *started())\n"
        "import sglang.srt.entrypoints.http_server\n"
        "print('SERVING', *started())\n"
        "print('AGAIN', *started(), hooks._registered.count(http.HOOKS[0]))\n"
        "assert hooks.is_applied(http.HOOKS[0].target, http.around_json)\n"
    )
    result = python(LOAD + REGISTERED + start, GOVERNOR_ENDPOINT="ipc:///tmp/none.sock")
    assert "OFFLINE False False" in result.stdout, result.stderr
    assert "SERVING True True" in result.stdout, result.stderr
    assert "AGAIN True True 1" in result.stdout, result.stderr
    assert result.returncode == 0, result.stderr


def test_an_sglang_without_a_target_is_refused_before_it_starts(python: PluginProcesses) -> None:
    remove = (
        "from sglang.srt.managers.scheduler import Scheduler\ndel Scheduler.update_running_batch\n"
    )
    result = python(remove + LOAD + "print('went on')", GOVERNOR_ENDPOINT="ipc:///tmp/none.sock")
    assert result.returncode != 0
    assert "Scheduler.update_running_batch" in result.stderr
    assert "went on" not in result.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"GOVERNOR_ENDPOINT": "somewhere"}, "GOVERNOR_ENDPOINT"),
        ({"GOVERNOR_CONFIG": "/nowhere.yaml"}, "/nowhere.yaml"),
        (
            {"GOVERNOR_ENDPOINT": "embedded", "GOVERNOR_MAX_PARKED_STEPS": "0"},
            "GOVERNOR_MAX_PARKED_STEPS",
        ),
        ({"GOVERNOR_ENDPONT": "embedded"}, "did you mean GOVERNOR_ENDPOINT"),
    ],
    ids=["endpoint", "missing file", "bad value", "typo"],
)
def test_bad_configuration_stops_the_start(
    python: PluginProcesses, environment: dict[str, str], message: str
) -> None:
    result = python(LOAD + "print('went on')", **environment)
    assert result.returncode != 0
    assert message in result.stderr
    assert "went on" not in result.stdout


def test_an_unknown_sglang_version_is_refused_unless_insisted(python: PluginProcesses) -> None:
    pretend = "from sglang_patch.seams import versions\nversions.CHECKED = ('0.1',)\n"
    gone = (
        "from sglang.srt.managers.scheduler import Scheduler\ndel Scheduler.update_running_batch\n"
    )
    result = python(pretend + LOAD + "print('on')", GOVERNOR_ENDPOINT="ipc:///tmp/none.sock")
    assert "0.1" in result.stderr
    assert f"SGLang {versions.installed()} is not one" in result.stderr
    assert "GOVERNOR_ALLOW_UNKNOWN_SGLANG" in result.stderr
    result = python(
        pretend + LOAD + "print('on')",
        GOVERNOR_ENDPOINT="ipc:///tmp/none.sock",
        GOVERNOR_ALLOW_UNKNOWN_SGLANG="1",
    )
    assert "on" in result.stdout, result.stderr
    result = python(
        pretend + gone + LOAD + "print('went on')",
        GOVERNOR_ENDPOINT="ipc:///tmp/none.sock",
        GOVERNOR_ALLOW_UNKNOWN_SGLANG="1",
    )
    assert "this SGLang has no" in result.stderr, "what does not fit is refused all the same"
    assert "went on" not in result.stdout


CHAINS: dict[str, Any] = {
    "speculative_algorithm": "STANDALONE",
    "speculative_eagle_topk": 1,
    "speculative_adaptive": True,
    "device": "cpu",
}

NGRAMS: dict[str, Any] = {
    "speculative_algorithm": "NGRAM",
    "speculative_eagle_topk": 10,  # SGLang sets it to the breadth of the lookup
    "speculative_num_draft_tokens": 256,
    "device": "cpu",
}

UNSUPPORTED = {
    "--enable-dp-attention": {"enable_dp_attention": True},
    "--pp-size above 1": {"pp_size": 2},
    "--disaggregation-mode": {"disaggregation_mode": "prefill"},
    "--enable-pdmux": {"enable_pdmux": True},
    "--dllm-algorithm": {"dllm_algorithm": "x"},
    "--enable-hisparse": {"enable_hisparse": True},
    "--use-ray": {"use_ray": True},
    "--device mps": {"device": "mps"},
    "--is-embedding": {"is_embedding": True},
    "--enable-prefill-delayer": {"enable_prefill_delayer": True},
    "--scheduler-recv-interval above 1": {"scheduler_recv_interval": 4},
    "--tokenizer-worker-num above 1": {"tokenizer_worker_num": 2},
    "--smg-grpc-mode": {"smg_grpc_mode": True},
    "--grpc-mode": {"grpc_mode": True},
    "SGLANG_RUST_SERVER=1": {},
    "--enable-mixed-chunk in the overlap loop": {"enable_mixed_chunk": True},
    "--speculative-algorithm": {"speculative_algorithm": "DFLASH"},
    "--speculative-algorithm on this version of SGLang": CHAINS,
    "--speculative-algorithm on another device than a CPU": {
        "speculative_algorithm": "EAGLE",
        "device": "cuda",
    },
    "NGRAM and --speculative-eagle-topk above 1 on another device than a CPU": {
        **CHAINS,
        "speculative_eagle_topk": 4,
        "device": "cuda",
    },
    "--speculative-algorithm without --speculative-adaptive": {
        **CHAINS,
        "speculative_adaptive": False,
    },
    "--speculative-num-draft-tokens above 256": {**NGRAMS, "speculative_num_draft_tokens": 257},
    "--speculative-use-rejection-sampling": {
        **CHAINS,
        "speculative_use_rejection_sampling": True,
    },
}


def test_every_refusal_has_an_example() -> None:
    assert {item.name for item in REFUSED} == set(UNSUPPORTED)


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if the version that drafts are known of was installed, whichever is."""
    monkeypatch.setattr(versions, "installed", lambda: "0.5.17")
    return monkeypatch


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_configuration_is_refused_by_name(name: str, older: pytest.MonkeyPatch) -> None:
    if "version" in name:
        older.setattr(versions, "installed", lambda: "0.5.23")
    if "=" in name:
        older.setenv(*name.split("="))
    with pytest.raises(ConfigurationError) as caught:
        refuse_unsupported(SimpleNamespace(**UNSUPPORTED[name]))
    assert name in str(caught.value)
    older.delenv("SGLANG_RUST_SERVER", raising=False)
    older.setattr(versions, "installed", lambda: "0.5.17")
    refuse_unsupported(SimpleNamespace())
    refuse_unsupported(SimpleNamespace(**CHAINS))
    refuse_unsupported(SimpleNamespace(**NGRAMS))
    trees = {"speculative_eagle_topk": 2, "speculative_adaptive": False}
    refuse_unsupported(SimpleNamespace(**{**CHAINS, **trees}))


@pytest.mark.usefixtures("older")
def test_a_device_that_was_never_tried_can_be_insisted_on() -> None:
    on_gpu = SimpleNamespace(**{**CHAINS, "device": "cuda"})
    refuse_unsupported(on_gpu, allow_untried=True)
    with pytest.raises(ConfigurationError, match="GOVERNOR_ALLOW_UNTRIED_DEVICE"):
        refuse_unsupported(on_gpu)
    with pytest.raises(ConfigurationError, match="rejection-sampling"):
        refuse_unsupported(
            SimpleNamespace(**vars(on_gpu), speculative_use_rejection_sampling=True),
            allow_untried=True,
        )


@pytest.mark.engine
@pytest.mark.parametrize(
    ("arguments", "environment", "name"),
    [
        (["--enable-mixed-chunk"], {}, "--enable-mixed-chunk in the overlap loop"),
        ([], {"SGLANG_RUST_SERVER": "1"}, "SGLANG_RUST_SERVER=1"),
    ],
    ids=str,
)
def test_a_real_server_refuses_what_is_not_governed(
    model: Path, arguments: list[str], environment: dict[str, str], name: str
) -> None:
    with workspace() as folder:
        engine = CpuEngine(
            folder,
            model,
            overlap=True,
            governor={"ENDPOINT": f"ipc://{folder}/c.sock"},
            arguments=arguments,
            environment=environment,
        )
        with engine, pytest.raises(StartFailed, match=f"{name}: "):
            engine.wait_ready()


@pytest.mark.engine
def test_a_real_server_refuses_an_embedded_controller_that_does_not_start(model: Path) -> None:
    with workspace() as folder:
        engine = CpuEngine(folder, model, governor={"ENDPOINT": "embedded", "POLICY": "tapper"})
        with engine, pytest.raises(StartFailed, match="GOVERNOR_POLICY") as caught:
            engine.wait_ready()
        assert "tapper" in str(caught.value) or "tapper" in engine.log.read_text()


@pytest.mark.engine
def test_embedded_controller_lives_and_dies_with_its_engine(model: Path) -> None:
    """Killed without a chance to clean up, the engine takes its controller with it; while it
    lives, a controller that dies is started again."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def controller_pid() -> int | None:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "controller_service" in words and f"--http=127.0.0.1:{port}" in words:
                return process.pid
        return None

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return get_json(f"{url}/v1/status")["policy"] == "cap:3"
        return False

    with workspace() as folder:
        engine = CpuEngine(
            folder,
            model,
            governor={
                "ENDPOINT": "embedded",
                "POLICY": "cap:3",
                "CONTROLLER_HTTP": f"127.0.0.1:{port}",
            },
        )
        with engine:
            engine.wait_ready()
            until(answers, "the embedded controller does not answer")
            first = controller_pid()
            assert first is not None
            os.kill(first, signal.SIGKILL)
            until(lambda: controller_pid() not in (None, first), "it was not started again")
            until(answers, "the restarted controller does not answer")
            engine.signal(signal.SIGKILL)
            until(lambda: controller_pid() is None, "the controller outlived its engine")
