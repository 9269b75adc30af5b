"""Speculation on the reference CPU platform: what is refused, and how functions are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sglang_patch.platforms import reference_cpu
from sglang_patch.platforms.speculation import replacing, requirements, workers
from sglang_patch.platforms.speculation.replacing import Replacement
from sglang_patch.seams import versions

pytestmark = pytest.mark.skipif(
    not versions.knows_drafts(), reason="drafts are not known of this version of SGLang"
)

DOCUMENT = Path(__file__).parents[2] / "docs/speculation-cpu.md"


def server_args(**given: Any) -> SimpleNamespace:
    values = {"speculative_algorithm": "EAGLE", "attention_backend": "torch_native"}
    return SimpleNamespace(**{**values, **given})


@pytest.mark.parametrize("algorithm", [None, "NGRAM", "standalone", "EAGLE", "NEXTN"])
def test_what_runs_is_let_through(algorithm: str | None) -> None:
    requirements.refuse_unsupported(server_args(speculative_algorithm=algorithm))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"speculative_algorithm": "EAGLE3"}, "--speculative-algorithm"),
        ({"speculative_algorithm": "dflash"}, "NGRAM, STANDALONE"),
        ({"attention_backend": "triton"}, "--attention-backend"),
        ({"decode_attention_backend": "fa3"}, "--decode-attention-backend"),
        ({"speculative_draft_attention_backend": "fa3"}, "--speculative-draft-attention-backend"),
        ({"page_size": 16}, "--page-size"),
        ({"enable_dp_attention": True}, "--enable-dp-attention"),
        ({"enable_multi_layer_eagle": True}, "--enable-multi-layer-eagle"),
    ],
)
def test_what_does_not_run_is_refused_by_name(given: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match="leave out --speculative-algorithm") as caught:
        requirements.refuse_unsupported(server_args(**given))
    assert name in str(caught.value)


def test_without_speculation_nothing_is_refused() -> None:
    requirements.refuse_unsupported(
        server_args(speculative_algorithm=None, attention_backend="own", page_size=16)
    )


def test_the_document_names_everything_that_is_refused() -> None:
    names = {item.name.partition(" ")[0] for item in requirements.REFUSED}
    assert {name for name in names if f"`{name}`" not in DOCUMENT.read_text()} == set()


def original(rows: int, width: int) -> str:
    return "original"


def counterpart(rows: int, width: int) -> str:
    return "counterpart"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """A module that defines a function, and one that has imported it under another name."""
    package, home, guest = (ModuleType(f"sglang{rest}") for rest in ("_x", "._home", "._guest"))
    vars(home).update(work=original, Kernel=SimpleNamespace(fn=original))
    vars(guest).update(imported=original, kernel=home.Kernel)
    monkeypatch.setattr(replacing, "_done", {})
    monkeypatch.setitem(sys.modules, "sglang_x", package)
    for module in (home, guest):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(
        replacing.pkgutil, "resolve_name", lambda name: sys.modules[name.partition(":")[0]]
    )
    yield home, guest


def test_a_function_is_replaced_wherever_it_is_bound(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    home, guest = modules
    replacing.replace_all([Replacement("sglang._home.work", counterpart)])
    assert (home.work(1, 2), guest.imported(1, 2)) == ("counterpart", "counterpart")
    assert replacing.not_in_place() == []
    replacing.replace_all([Replacement("sglang._home.work", original)])
    assert home.work is counterpart, "what was replaced was replaced again"


def test_a_function_that_is_its_own_replacement_is_in_place(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    """As where compiling is switched off: a compiled function is the plain one then."""
    replacing.replace_all([Replacement("sglang._home.work", original)])
    assert replacing.not_in_place() == []


def test_a_kernel_is_still_launched_on_a_grid(modules: tuple[ModuleType, ModuleType]) -> None:
    home, guest = modules
    replacing.replace_all([Replacement("sglang._home.Kernel", counterpart, is_kernel=True)])
    assert home.Kernel[(4,)](1, width=2) == "counterpart"
    assert guest.kernel is home.Kernel


def test_what_was_put_back_is_named(modules: tuple[ModuleType, ModuleType]) -> None:
    home, guest = modules
    replacing.replace_all([Replacement("sglang._home.work", counterpart)])
    guest.imported = original
    assert replacing.not_in_place() == ["sglang._guest.imported"]
    guest.imported, home.work = counterpart, lambda rows, width: "another plugin's"
    assert replacing.not_in_place() == ["sglang._home.work"]


def test_an_unknown_signature_replaces_nothing(modules: tuple[ModuleType, ModuleType]) -> None:
    home, _ = modules
    wanted = [
        Replacement("sglang._home.work", counterpart),
        Replacement("sglang._home.Kernel", lambda rows: "renamed", is_kernel=True),
    ]
    with pytest.raises(RuntimeError, match=r"sglang\._home\.Kernel takes \('rows', 'width'\)"):
        replacing.replace_all(wanted)
    with pytest.raises(RuntimeError, match=r"SGLang has no sglang\._home\.gone"):
        replacing.replace_all([wanted[0], Replacement("sglang._home.gone", counterpart)])
    assert home.work is original


def test_other_ways_to_create_workers_are_unknown() -> None:
    class Renamed:
        def make_worker(self, server_args: Any) -> None: ...

    with pytest.raises(RuntimeError, match="create_worker"):
        workers.prepare(Renamed)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, as a scheduler of the platform, without other plugins."""
    environment = {key: value for key, value in os.environ.items() if "GOVERNOR" not in key}
    environment |= {
        "SGLANG_PLATFORM": reference_cpu.PLATFORM_NAME,
        "SGLANG_PLUGINS": "governor",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


CREATE = """
from types import SimpleNamespace
import sglang.srt.model_executor.model_runner
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
from sglang_patch.platforms.speculation import attention, replacing, self_check

stock = ATTENTION_BACKENDS["torch_native"]
print("BEFORE", len(replacing._done))
try:
    self_check.require_in_place()
except RuntimeError as error:
    print("STOCK", error)
{meddle}
args = SimpleNamespace(speculative_algorithm="STANDALONE", attention_backend="torch_native")
print("WORKER", SpeculativeAlgorithm.STANDALONE.create_worker(args).__name__)
assert ATTENTION_BACKENDS["torch_native"] is attention.create_attention
assert SpeculativeAlgorithm.STANDALONE.create_worker(args)
print("REPLACED", *replacing._done)
import sys
print("STAND-IN LEFT", "sgl_kernel" in sys.modules)
from sglang.srt.speculative import eagle_worker_common
{afterwards}
self_check.require_in_place()
print("IN PLACE")
"""


@pytest.fixture(scope="module")
def created() -> subprocess.CompletedProcess[str]:
    pytest.importorskip("sglang")
    steal = "eagle_worker_common.eagle_sample = lambda *args: None\n"
    steal += "from sglang.srt.speculative import eagle_utils\n"
    steal += "eagle_utils.verify_tree_greedy_func = lambda **args: tuple(args.values())[:3]"
    return python(CREATE.format(meddle="", afterwards=steal))


def test_the_platform_replaces_nothing_until_a_worker_is_created(
    created: subprocess.CompletedProcess[str],
) -> None:
    assert "BEFORE 0" in created.stdout, created.stderr
    assert "WORKER StandaloneWorkerV2" in created.stdout, created.stderr
    assert "STAND-IN LEFT False" in created.stdout


def test_the_document_names_everything_that_is_replaced(
    created: subprocess.CompletedProcess[str],
) -> None:
    line = next(line for line in created.stdout.splitlines() if line.startswith("REPLACED"))
    names = {target.rpartition(".")[2] for target in line.split()[1:]}
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in DOCUMENT.read_text()} == set()


def test_the_check_finds_both_silent_failures_of_stock_sglang(
    created: subprocess.CompletedProcess[str],
) -> None:
    line = next(line for line in created.stdout.splitlines() if line.startswith("STOCK"))
    assert "assign_extend_cache_locs_func finds no slots" in line
    assert "verify_tree_greedy_func does not verify" in line


def test_what_was_replaced_afterwards_ends_the_start(
    created: subprocess.CompletedProcess[str],
) -> None:
    assert created.returncode != 0
    assert "IN PLACE" not in created.stdout
    assert "verify_tree_greedy_func is not the reference" in created.stderr
    assert "verify_tree_greedy_func does not verify" in created.stderr


def test_a_replacement_that_did_not_take_ends_the_start() -> None:
    pytest.importorskip("sglang")
    meddle = "from sglang_patch.platforms.speculation import catalogue\n"
    meddle += "catalogue.replace_all = lambda replacements: None"
    result = python(CREATE.format(meddle=meddle, afterwards=""))
    assert result.returncode != 0
    assert "WORKER" not in result.stdout
    assert "assign_extend_cache_locs_func finds no slots" in result.stderr
    assert "leave out --speculative-algorithm" in result.stderr
