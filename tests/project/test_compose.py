"""``compose.yaml`` and the Dockerfiles, checked against each other and the code.

There is no container engine here, so this holds the structure that a start depends on.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
TEXT = COMPOSE.read_text()
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
SERVICES = ("controller", "engine")

KEYS = {
    *("build", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports"),
    *("restart", "shm_size", "user", "volumes"),
}
"""Keys of a service that are used here; all are in the Compose Specification."""


def with_defaults(text: str) -> str:
    """What Compose makes of ``${NAME:-default}`` and ``${NAME:+instead}`` when nothing is set."""
    return re.sub(r"\$\{\w+:(?:-([^}]*)|\+[^}]*)\}", r"\1", text)


def with_set(text: str, variables: dict[str, str]) -> str:
    """What Compose makes of it when some variables are set."""
    for name, value in variables.items():
        text = re.sub(rf"\$\{{{name}:-[^}}]*\}}", value, text)
        text = re.sub(rf"\$\{{{name}:\+([^}}]*)\}}", r"\1", text)
    return with_defaults(text)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(with_defaults(TEXT))
    return loaded


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """``(instruction, arguments)``, continuation lines joined, comments dropped."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def test_the_services() -> None:
    assert set(compose()) == {"name", "services", "volumes"}
    assert set(compose()["services"]) == set(SERVICES)
    for name in SERVICES:
        assert set(service(name)) <= KEYS


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_can_be_built_watched_and_restarted(name: str) -> None:
    found = service(name)
    assert found["image"]
    assert (ROOT / found["build"]["context"] / found["build"]["dockerfile"]).is_file()
    assert found["restart"] == "unless-stopped"
    check = found["healthcheck"]
    assert check["test"][0] == "CMD"
    assert set(check) == {"test", "interval", "timeout", "retries", "start_period"}
    for key in ("interval", "timeout", "start_period"):
        assert re.fullmatch(r"\d+[sm]", check[key])


def test_the_health_checks_ask_what_the_services_serve() -> None:
    from controller_service.http_api import HttpApi

    assert hasattr(HttpApi, "healthz")
    (address,) = options("controller", "--http")
    port = address.rpartition(":")[2]
    assert f"http://127.0.0.1:{port}/healthz" in service("controller")["healthcheck"]["test"][-1]
    (port,) = options("engine", "--port")
    assert f"http://127.0.0.1:{port}/health'" in service("engine")["healthcheck"]["test"][-1]
    assert [entry.rpartition(":")[2] for entry in service("engine")["ports"]] == [port]


def test_both_sides_of_the_socket_agree() -> None:
    from sglang_patch.config import load

    (bound,) = options("controller", "--endpoint")
    environment = service("engine")["environment"]
    assert environment["GOVERNOR_ENDPOINT"] == bound
    assert load(environment, []).endpoint == bound  # every variable is one that the engine takes
    folder = str(Path(bound.removeprefix("ipc://")).parent)
    shared = [
        {entry.split(":")[0] for entry in service(name)["volumes"] if f":{folder}" in entry}
        for name in SERVICES
    ]
    assert shared[0] == shared[1] != set()
    assert shared[0] <= set(compose()["volumes"])


def test_engine_variables_are_settings_of_the_engine() -> None:
    from sglang_patch.config import PREFIX, EngineConfig

    ours = [name for name in service("engine")["environment"] if name.startswith(PREFIX)]
    known = {PREFIX + field.upper() for field in EngineConfig.__struct_fields__}
    assert set(ours) <= known


def test_one_user_owns_the_socket_and_its_folder() -> None:
    users = {str(service(name)["user"]) for name in SERVICES}
    assert len(users) == 1
    (user,) = users
    assert user != "0"
    volume = compose()["volumes"]["socket"]
    assert f"uid={user}" in volume["driver_opts"]["o"].split(",")
    for name in SERVICES:
        assert str(service(name)["build"]["args"]["GOVERNOR_UID"]) == user
    for dockerfile in DOCKERFILES:
        assert ("ARG", f"GOVERNOR_UID={user}") in instructions(dockerfile)


def options(name: str, flag: str) -> list[str]:
    """Values of ``flag=value`` in a service's command."""
    words = service(name)["command"]
    return [word.partition("=")[2] for word in words if word.startswith(flag + "=")]


def test_the_controllers_command_is_one_that_governor_takes() -> None:
    from controller_service.commands.serve import serve
    from controller_service.config import load_config

    name, *flags = service("controller")["command"]
    assert name == "serve"
    context = click.Context(serve)
    with context:
        serve.parse_args(context, list(flags))
    settings = {key: value for key, value in context.params.items() if key != "config"}
    assert load_config(None, settings).policy == "taper_plus"


def test_the_engine_waits_for_a_healthy_controller_and_reserves_gpus() -> None:
    engine = service("engine")
    assert engine["depends_on"] == {"controller": {"condition": "service_healthy"}}
    (device,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert options("engine", "--model-path")


def test_nothing_is_published_beyond_this_host() -> None:
    for name in SERVICES:
        for entry in service(name).get("ports", []):
            assert entry.startswith("127.0.0.1:")
    assert options("controller", "--http") == ["127.0.0.1:9470"]


def test_every_variable_has_a_default_and_is_explained() -> None:
    code = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))
    explained = "\n".join(line for line in TEXT.splitlines() if line.startswith("#"))
    conditional = re.findall(r"\$\{(\w+):\+[^}]+\}", code)
    assert code.count("${") == len(conditional) + len(re.findall(r"\$\{\w+:-[^}]+\}", code))
    assert set(conditional) == {"HTTP_TOKEN_FILE", "LOG_VOLUME"}
    defaults: dict[str, set[str]] = {}
    for name, default in re.findall(r"\$\{(\w+):-([^}]+)\}", code):
        defaults.setdefault(name, set()).add(default)
    assert defaults
    for name, values in defaults.items():
        assert len(values) == 1, f"{name} has several defaults: {values}"
        assert re.search(rf"^#   {name}\s", explained, re.MULTILINE), f"{name} is not explained"
        assert next(iter(values)) in explained


def test_without_variables_there_is_neither_a_token_nor_a_log() -> None:
    environment = service("controller")["environment"]
    assert (environment["GOVERNOR_HTTP_TOKEN_FILE"], environment["GOVERNOR_LOG_DIR"]) == ("", "")


def test_a_token_file_and_a_log_volume_are_mounted_where_the_controller_looks() -> None:
    from controller_service.commands.serve import VARIABLES

    text = with_set(TEXT, {"HTTP_TOKEN_FILE": "/etc/token", "LOG_VOLUME": "/srv/log"})
    controller = yaml.safe_load(text)["services"]["controller"]
    environment = controller["environment"]
    token, log = environment["GOVERNOR_HTTP_TOKEN_FILE"], environment["GOVERNOR_LOG_DIR"]
    assert f"/etc/token:{token}:ro" in controller["volumes"]
    assert f"/srv/log:{log}" in controller["volumes"]
    ours = {name for name in environment if name.startswith("GOVERNOR_")}
    assert ours <= set(VARIABLES.values())
    found = instructions(ROOT / "docker/Dockerfile.controller")
    (folder,) = [rest for name, rest in found if name == "WORKDIR" and rest in log]
    assert ("RUN", f"mkdir {Path(log).relative_to(folder)}") in found
    assert found.index(("USER", "governor")) < found.index(("RUN", "mkdir log"))


def test_the_comment_about_the_policy_names_every_policy_and_no_other() -> None:
    from controller_service.policies.registry import BUILT_IN, parse_policy

    (comment,) = re.findall(
        r"^#   POLICY .*\n((?:#                      .*\n)+)", TEXT, re.MULTILINE
    )
    named = {}
    for knob, names in re.findall(r"#\s+(\w+): (.*)", comment):
        for name in names.split(", "):
            named[name.partition(":")[0]] = knob
            if ":" not in name:
                assert parse_policy(name).label == name
    assert named == {name: str(kind.knob) for name, kind in BUILT_IN.items()}


def test_there_is_a_dockerfile_for_each_service() -> None:
    assert [path.name for path in DOCKERFILES] == [f"Dockerfile.{name}" for name in SERVICES]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_exists_and_all_that_the_package_needs(dockerfile: Path) -> None:
    copied: set[str] = set()
    for name, rest in instructions(dockerfile):
        if name in ("COPY", "ADD"):
            sources = [word for word in shlex.split(rest)[:-1] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), rest
            copied.update(sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {
        Path(name).parts[:1] for name in project["tool"]["setuptools"]["packages"]["find"]["where"]
    }
    needed = {"pyproject.toml", "README.md", "sglang_patch", "controller_service"}
    assert needed | {parts[0] for parts in folders if parts} <= copied


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_do_not_run_as_root(dockerfile: Path) -> None:
    users = [rest for name, rest in instructions(dockerfile) if name == "USER"]
    assert users
    assert users[-1] not in ("root", "0")


def test_the_controllers_image_holds_neither_torch_nor_sglang() -> None:
    found = instructions(ROOT / "docker/Dockerfile.controller")
    installs = [rest for name, rest in found if name == "RUN" and "pip install" in rest]
    assert any("requirements/controller.txt" in rest for rest in installs)
    assert any("--no-deps ." in rest for rest in installs)
    assert not [rest for rest in installs if "[" in rest or "torch" in rest]
    assert ("ENTRYPOINT", '["governor"]') in found


def test_the_engines_image_leaves_sglangs_versions_alone() -> None:
    from sglang_patch.seams.versions import CHECKED

    found = instructions(ROOT / "docker/Dockerfile.engine")
    (image,) = [rest for name, rest in found if name == "ARG" and rest.startswith("SGLANG_IMAGE")]
    assert image.partition("=")[2] == service("engine")["build"]["args"]["SGLANG_IMAGE"]
    tag = image.rpartition(":v")[2].partition("-")[0]
    assert tag in CHECKED
    assert ("FROM", "${SGLANG_IMAGE}") in found
    installs = [rest for name, rest in found if name == "RUN" and "pip install" in rest]
    assert installs
    for rest in installs:
        assert "--no-deps" in rest
    pinned = set((ROOT / "requirements/controller.txt").read_text().split())
    assert set(re.findall(r"[\w-]+==\S+", " ".join(installs))) <= pinned


def test_what_the_engines_image_lacks_is_what_sglang_does_not_bring() -> None:
    """Everything that the plugin imports comes with SGLang, or is installed on top of it."""
    try:
        metadata.distribution("sglang")
    except metadata.PackageNotFoundError:
        pytest.skip("SGLang is not installed")
    brought = closure("sglang")
    (install,) = [
        rest
        for name, rest in instructions(ROOT / "docker/Dockerfile.engine")
        if name == "RUN" and "pip install" in rest
    ]
    added = set(re.findall(r"([\w-]+)==", install))
    needed = {requirement_name(line) for line in metadata.requires("sglang-governor") or []
              if "extra ==" not in line}  # fmt: skip
    assert needed - brought == added & needed
    assert added - needed <= {"narwhals"}  # what LightGBM needs in turn


def closure(root: str) -> set[str]:
    """Names of all installed distributions that ``root`` pulls in."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting.extend(requirement_name(line) for line in lines if "extra ==" not in line)
    return found


def requirement_name(line: str) -> str:
    match = re.match(r"[\w.-]+", line)
    assert match, line
    return re.sub(r"[-_.]+", "-", match[0]).lower()
