"""The reference CPU platform: selected by name only, and complete enough to be resolved."""

from __future__ import annotations

import importlib.metadata
import os
import pkgutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_patch.platforms import reference_cpu
from sglang_patch.platforms.gloo_groups import DEVICE_COMMUNICATORS, use_gloo_only
from sglang_patch.seams import versions

SELECTED = reference_cpu.PLATFORM_NAME


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Without what it sets for the processes of an engine; set anew after the test."""
    pytest.importorskip("sglang")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "")
    monkeypatch.delenv("TORCHDYNAMO_DISABLE")
    return pkgutil.resolve_name(reference_cpu.PLATFORM_CLASS)()


@pytest.mark.parametrize("value", [None, "", "cuda", SELECTED.upper()])
def test_stays_out_of_the_way_unless_selected(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("SGLANG_PLATFORM", raising=False)
    else:
        monkeypatch.setenv("SGLANG_PLATFORM", value)
    assert reference_cpu.activate() is None


def test_names_its_class_when_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_PLATFORM", SELECTED)
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    assert reference_cpu.activate() == reference_cpu.PLATFORM_CLASS


def test_refuses_to_share_with_the_compiled_cpu_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_PLATFORM", SELECTED)
    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", "1")
    with pytest.raises(RuntimeError, match="Unset SGLANG_USE_CPU_ENGINE"):
        reference_cpu.activate()


def test_entry_point_leads_to_activate() -> None:
    entries = importlib.metadata.entry_points(group="sglang.srt.platforms", name=SELECTED)
    assert [entry.load() for entry in entries] == [reference_cpu.activate]


def test_asking_for_it_imports_neither_torch_nor_sglang() -> None:
    code = (
        "import sys; from sglang_patch.platforms.reference_cpu import activate; "
        "assert activate() is None; "
        "print([name for name in ('torch', 'sglang', 'psutil') if name in sys.modules])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "SGLANG_PLATFORM"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_sglang_resolves_it_when_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    platforms = pytest.importorskip("sglang.srt.platforms")
    monkeypatch.setenv("SGLANG_PLATFORM", SELECTED)
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    chosen = platforms._resolve_platform()
    assert type(chosen).__name__ == "ReferenceCpuPlatform"
    assert chosen.is_out_of_tree()
    assert chosen.device_type == "cpu"


def test_supplies_what_sglang_builds_with(platform: Any) -> None:
    assert platform.get_device() == "cpu"
    assert platform.get_default_attention_backend() == "torch_native"
    assert platform.get_mha_kv_pool_cls().__name__ == "MHATokenToKVPool"
    pool = platform.get_kv_pool_cls(kind="mha")
    assert pool.__mro__[1].__name__ == "MHATokenToKVPool"
    assert platform.get_kv_pool_cls(kind="mla") is None, "SGLang's own"
    assert platform.get_torch_distributed_backend_str() == "gloo"
    used, total = platform.get_current_memory_usage(), platform.get_device_total_memory()
    assert 0 < used < total
    assert platform.get_available_memory()[1] == total


def server_args(**changes: Any) -> SimpleNamespace:
    given = {
        "attention_backend": "intel_amx",
        "dtype": "auto",
        "grammar_backend": None,
        "max_total_tokens": None,
        "tp_size": 1,
        "dp_size": 1,
        "disable_overlap_schedule": False,
    }
    return SimpleNamespace(**(given | changes))


def test_defaults_run_without_kernels_and_keep_the_overlap_loop(platform: Any) -> None:
    args = server_args()
    platform.apply_server_args_defaults(args)
    assert (args.attention_backend, args.dtype) == ("torch_native", "float32")
    assert args.grammar_backend == "llguidance"
    assert args.max_total_tokens > 0
    assert args.disable_overlap_schedule is False


def test_what_the_operator_chose_stands(platform: Any) -> None:
    args = server_args(attention_backend="own", dtype="bfloat16", max_total_tokens=99)
    platform.apply_server_args_defaults(args)
    assert (args.attention_backend, args.dtype, args.max_total_tokens) == ("own", "bfloat16", 99)


@pytest.mark.parametrize("chosen", ["llguidance", "outlines", "none"])
def test_a_grammar_backend_that_was_chosen_stands(platform: Any, chosen: str) -> None:
    args = server_args(grammar_backend=chosen)
    platform.apply_server_args_defaults(args)
    assert args.grammar_backend == chosen


def test_the_grammar_backend_that_needs_cuda_is_refused_by_name(
    platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang's own choice would end the engine with the first grammar, however late that comes."""
    monkeypatch.setattr(versions, "installed", lambda: "0.5.17")
    with pytest.raises(ValueError, match=r"--grammar-backend xgrammar .* Leave the option out"):
        platform.apply_server_args_defaults(server_args(grammar_backend="xgrammar"))
    monkeypatch.setattr(versions, "installed", lambda: "0.5.23")
    platform.apply_server_args_defaults(server_args(grammar_backend="xgrammar"))


@pytest.mark.parametrize(("wanted", "set_to"), [(False, "1"), (True, None)])
def test_nothing_is_compiled_while_requests_wait_unless_asked_for(
    platform: Any, wanted: bool, set_to: str | None
) -> None:
    platform.apply_server_args_defaults(server_args(enable_torch_compile=wanted))
    assert os.environ.get("TORCHDYNAMO_DISABLE") == set_to


@pytest.mark.parametrize("chosen", [None, "0|0"])
def test_ranks_get_cores_unless_they_are_dealt_out_already(
    monkeypatch: pytest.MonkeyPatch, platform: Any, chosen: str | None
) -> None:
    variable = "SGLANG_CPU_OMP_THREADS_BIND"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 7})
    monkeypatch.setenv(variable, chosen or "")
    if chosen is None:
        monkeypatch.delenv(variable)
    platform.apply_server_args_defaults(server_args(tp_size=2))
    assert os.environ[variable] == (chosen or "3,7|5")


@pytest.mark.parametrize(("by", "dealt"), [("tp_rank", None), ("world_size", "3,7|5")])
def test_replicas_get_cores_where_sglang_binds_all_ranks(
    monkeypatch: pytest.MonkeyPatch, platform: Any, by: str, dealt: str | None
) -> None:
    from sglang.srt.utils import numa_utils

    bind: dict[str, Any] = {"tp_rank": lambda tp_rank: None, "world_size": lambda world_size: None}
    monkeypatch.setattr(numa_utils, "init_threads_binding", bind[by])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 7})
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "")
    monkeypatch.delenv("SGLANG_CPU_OMP_THREADS_BIND")
    platform.apply_server_args_defaults(server_args(dp_size=2))
    assert os.environ.get("SGLANG_CPU_OMP_THREADS_BIND") == dealt


def test_more_ranks_than_cores_share(monkeypatch: pytest.MonkeyPatch, platform: Any) -> None:
    module = sys.modules[type(platform).__module__]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    assert module.deal_cores(4) == "0|1|0|1"


@pytest.mark.parametrize("algorithm", ["NGRAM", "standalone", "EAGLE"])
def test_drafts_are_refused_of_a_version_whose_kernels_are_not_known(
    platform: Any, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    from sglang_patch.seams import versions

    monkeypatch.setattr(versions, "installed", lambda: "0.5.23")
    with pytest.raises(ValueError, match=r"this version of SGLang: install 0\.5\.17"):
        platform.apply_server_args_defaults(server_args(speculative_algorithm=algorithm))
    platform.apply_server_args_defaults(server_args(speculative_algorithm="EMULATED"))


SWITCHES = [names[0] for names in DEVICE_COMMUNICATORS]


class FakeCoordinator:
    def __init__(
        self,
        ranks: list[int],
        use_pynccl: bool,
        use_pymscclpp: bool,
        use_custom_allreduce: bool,
        use_torch_symm_mem_all_reduce: bool,
        group_name: str = "anonymous",
    ) -> None:
        self.ranks, self.group_name = ranks, group_name
        self.used = [
            use_pynccl,
            use_pymscclpp,
            use_custom_allreduce,
            use_torch_symm_mem_all_reduce,
        ]


def test_groups_do_without_device_communicators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCoordinator, "__init__", FakeCoordinator.__init__)
    use_gloo_only(FakeCoordinator)
    once = FakeCoordinator.__init__
    use_gloo_only(FakeCoordinator)
    assert FakeCoordinator.__init__ is once
    given = dict.fromkeys(SWITCHES, True)
    by_name = FakeCoordinator([0, 1], **given, group_name="tp")
    by_position = FakeCoordinator([0, 1], True, True, True, True, "tp")
    assert by_name.used == by_position.used == [False] * 4
    assert (by_position.ranks, by_position.group_name) == ([0, 1], "tp")


def test_an_unknown_coordinator_is_an_error() -> None:
    class Renamed:
        def __init__(self, use_nccl: bool) -> None: ...

    with pytest.raises(RuntimeError, match="use_pynccl"):
        use_gloo_only(Renamed)


def test_sglangs_coordinator_is_known() -> None:
    parallel_state = pytest.importorskip("sglang.srt.distributed.parallel_state")
    coordinator = type("Coordinator", (parallel_state.GroupCoordinator,), {})
    coordinator.__init__ = parallel_state.GroupCoordinator.__init__  # type: ignore[misc]
    use_gloo_only(coordinator)
