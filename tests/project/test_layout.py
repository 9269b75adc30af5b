"""The rooms: who may import whom, what must not be importable, and what the README must name."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglang_patch.config import PREFIX, EngineConfig
from sglang_patch.seams.unsupported import REFUSED

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "governor_protos": ROOT / "protos/governor_protos",
    "governor_profiles": ROOT / "profiles/governor_profiles",
    "sglang_patch": ROOT / "sglang_patch",
    "controller_service": ROOT / "controller_service",
    "governor_kernels": ROOT / "kernels/governor_kernels",
    "governor_bench": ROOT / "benchmarks/governor_bench",
    "governor_workloads": ROOT / "benchmarks/workloads/governor_workloads",
    "governor_sim": ROOT / "simulator/governor_sim",
}
SOURCES = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, at whatever depth in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names


def importers(folder: Path, names: set[str]) -> set[str]:
    """Files under ``folder`` that import one of ``names``."""
    return {str(path.relative_to(ROOT)) for path in folder.rglob("*.py") if imported(path) & names}


def tracked_text() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if not path.is_file():
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            yield name, data.decode(errors="replace")


@pytest.mark.parametrize("folder", ["kernels", "protos"])
def test_folders_that_share_a_name_with_a_package_are_none(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_kernels_is_the_package_that_sglang_needs_even_from_the_root() -> None:
    if importlib.util.find_spec("sglang") is None:
        pytest.skip("SGLang, which brings it, is not installed")
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('kernels').origin)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "site-packages" in found.stdout


def test_every_package_was_found() -> None:
    assert len(SOURCES) > 80
    assert all((folder / "__init__.py").is_file() for folder in PACKAGES.values())


def test_the_controller_needs_no_engine() -> None:
    forbidden = {"sglang", "sglang_patch", "torch", "governor_bench"}
    assert importers(PACKAGES["controller_service"], forbidden) == set()


def test_the_plugin_needs_no_controller() -> None:
    assert importers(PACKAGES["sglang_patch"], {"controller_service", "governor_bench"}) == set()


def test_sglang_and_torch_are_touched_in_three_places_only() -> None:
    allowed = ("sglang_patch/seams/", "sglang_patch/platforms/", "sglang_patch/emulated/")
    found = importers(PACKAGES["sglang_patch"], {"sglang", "torch"})
    assert {name for name in found if not name.startswith(allowed)} == set()
    assert found, "the check itself finds nothing"


@pytest.mark.parametrize("package", ["governor_protos", "governor_profiles"])
def test_the_contract_and_the_profiles_depend_on_msgspec_alone(package: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"msgspec", package}
    for path in PACKAGES[package].rglob("*.py"):
        reads_settings = path.name == "plain_yaml.py"
        assert imported(path) <= allowed | ({"yaml"} if reads_settings else set()), path


def test_workloads_and_reports_depend_on_numpy_and_msgspec_alone() -> None:
    allowed = set(sys.stdlib_module_names) | {"msgspec", "numpy", "governor_workloads"}
    for path in PACKAGES["governor_workloads"].rglob("*.py"):
        assert imported(path) <= allowed, path


def test_the_simulator_stands_on_the_real_code_and_needs_no_engine() -> None:
    ours = {
        "governor_profiles",
        "governor_protos",
        "governor_sim",
        "governor_workloads",
        "controller_service",
        "sglang_patch",
    }
    allowed = set(sys.stdlib_module_names) | {"msgspec", "numpy"} | ours
    for path in PACKAGES["governor_sim"].rglob("*.py"):
        assert imported(path) <= allowed, path
    # Nor do the parts of the plugin that it uses.
    code = "import sys, governor_sim.simulate; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "sglang_patch.governor" in loaded
    assert not set(loaded) & {"sglang", "torch", "zmq", "governor_bench"}


def test_the_simulator_asks_one_clock_for_its_own_speed_alone() -> None:
    folder = PACKAGES["governor_sim"]
    clocks = {"time", "datetime", "asyncio", "threading", "socket"}
    assert importers(folder, clocks) == {"simulator/governor_sim/simulate.py"}
    source = (folder / "simulate.py").read_text()
    assert set(re.findall(r"\btime\.(\w+)", source)) == {"perf_counter"}


@pytest.mark.parametrize("folder", ["policies", "predictors"])
def test_what_decides_reads_no_clock_and_no_socket(folder: str) -> None:
    forbidden = {"zmq", "time", "datetime", "socket", "subprocess", "asyncio"}
    assert importers(PACKAGES["controller_service"] / folder, forbidden) == set()


def test_applying_a_decision_is_pure() -> None:
    forbidden = {"zmq", "time", "sglang", "torch", "logging"}
    assert importers(PACKAGES["sglang_patch"] / "apply", forbidden) == set()


CODE_LOADERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}
CODE_RUNNERS = {"eval", "exec", "__import__"}
OBJECT_CALLS = {"recv_pyobj", "send_pyobj", "unsafe_load"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_from_data(path: Path) -> None:
    assert not imported(path) & CODE_LOADERS
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CODE_RUNNERS, f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in OBJECT_CALLS, f"{path}:{node.lineno}"


def requirement_lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def test_the_controller_installs_without_torch_and_sglang() -> None:
    names = {
        re.split(r"[=<>\[; ]", line, maxsplit=1)[0].lower()
        for line in requirement_lines(ROOT / "requirements/controller.txt")
    }
    assert {"msgspec", "pyzmq"} <= names
    assert not {name for name in names if name.startswith(("torch", "sglang", "nvidia"))}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda p: p.name
)
def test_requirement_files_name_no_index(path: Path) -> None:
    for line in requirement_lines(path):
        assert not line.startswith("-"), line  # --index-url and its like
        assert "://" not in line, line


def test_continuous_integration_is_the_readmes_test_command() -> None:
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert [line for line in script if line and not line.startswith("#")][-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("field", EngineConfig.__struct_fields__)
def test_readme_names_every_setting_of_the_engine(field: str) -> None:
    assert f"`{PREFIX}{field.upper()}`" in (ROOT / "README.md").read_text()


def test_readme_names_every_setting_of_the_controller() -> None:
    from controller_service.config import ControllerConfig

    readme = (ROOT / "README.md").read_text()
    assert [name for name in ControllerConfig.__struct_fields__ if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("name", [item.name for item in REFUSED])
def test_readme_names_every_refused_option(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_readme_names_every_outcome_reason_policy_and_predictor() -> None:
    from governor_protos.messages import Outcome

    from controller_service.policies.registry import BUILT_IN
    from controller_service.predictors.registry import predictor_names
    from sglang_patch.fallback import FallReason

    readme = (ROOT / "README.md").read_text()
    wanted = [outcome.name.lower() for outcome in Outcome if outcome is not Outcome.UNGOVERNED]
    wanted += [reason.value for reason in FallReason] + list(predictor_names())
    assert [word for word in wanted if f"`{word}`" not in readme] == []
    assert [name for name in BUILT_IN if not re.search(rf"`{name}[`:]", readme)] == []


def test_documents_name_files_that_exist() -> None:
    documents = [ROOT / "README.md", ROOT / "kernels/README.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        text = document.read_text()
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
        for name in re.findall(r"`(tests/[\w/]+\.py)`", text):
            assert (ROOT / name).exists(), f"{document.name}: {name}"


MACHINE_PATH = re.compile("(?<![\\w.])/" + "(?:work|root|Users|mnt)/[\\w.]")


def test_no_path_of_one_machine_is_written_down() -> None:
    found = {
        name: MACHINE_PATH.findall(text)[:3]
        for name, text in tracked_text()
        if MACHINE_PATH.search(text)
    }
    assert found == {}


def test_the_readme_explains_every_outcome_that_is_shown() -> None:
    from controller_service.observe.stats import OUTCOMES

    text = (ROOT / "README.md").read_text().partition("## When something goes wrong")[2]
    table = text.partition("| outcome | reason |")[2].partition("\n\n")[0]
    assert {row.split("`")[1] for row in table.splitlines()[2:]} == set(OUTCOMES)
