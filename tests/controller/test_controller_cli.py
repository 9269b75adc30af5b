"""The ``governor`` command, and its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import click
import pytest
from click.testing import CliRunner
from governor_protos import OURS

from controller_service.cli import main
from controller_service.commands.serve import VARIABLES, unread_variables
from controller_service.config import ConfigError, ControllerConfig, load_config

NOBODY = "http://127.0.0.1:1"


def run(*arguments):
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("arguments", [("status",), ("policy", "show"), ("policy", "set", "taper")])
def test_without_a_controller_one_line_says_what_to_do(arguments):
    result = run(*arguments, "--controller", NOBODY)
    assert result.exit_code == 1
    assert "governor serve" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_an_address_that_is_no_url_is_refused():
    assert run("status", "--controller", "file:///etc/passwd").exit_code == 1


def test_policies_are_listed_without_a_controller():
    result = run("policy", "list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()][:6] == [
        "off",
        "cap",
        "eager",
        "taper",
        "taper_plus",
        "random",
    ]


def test_the_client_commands_reach_a_controller(launch):
    controller = launch("--policy", "off")
    where = ("--controller", controller.http)
    assert run("policy", "show", *where).output.strip() == "off"
    assert run("policy", "set", "taper:rho=0.5", *where).output.strip() == (
        "policy: taper:rho=0.5 (was off)"
    )
    refused = run("policy", "set", "cap:none", *where)
    assert (refused.exit_code, "cap:2" in refused.output) == (1, True)
    assert json.loads(run("status", "--json", *where).output)["engines"] == []
    assert "no engine" in run("status", *where).output
    assert '"policy": "taper:rho=0.5"' in run("status", "--json", *where).output


def test_version():
    assert f"wire contract {OURS}" in run("version").output


class Point:
    """An entry point that another package offers."""

    module = "a_package"
    dist = None

    def __init__(self, name, value):
        self.name, self.value, self._loaded = name, f"a_package:{name}", value
        self.attr = name

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@pytest.fixture
def offered(monkeypatch):
    points = [
        Point("fine", click.Command("fine", callback=lambda: click.echo("fine indeed"))),
        Point("lacking", ModuleNotFoundError("No module named 'aiohttp'")),
        Point("odd", object()),
        Point("status", click.Command("status", callback=lambda: click.echo("hijacked"))),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)


@pytest.mark.usefixtures("offered")
def test_commands_of_other_packages():
    assert run("fine").output.strip() == "fine indeed"
    help_text = run("--help").output
    assert all(name in help_text for name in ("serve", "fine", "lacking", "odd"))


def test_help_says_of_every_command_that_ships_what_it_does():
    text = " ".join(run("--help").output.split())
    points = metadata.entry_points(group="governor.commands")
    offered = [point for point in points if point.dist.name == "sglang-governor"]
    assert len(offered) > 8
    for point in offered:
        says = point.load().get_short_help_str(100)
        assert f" {point.name} {says}" in text
    assert "From " not in text


def test_help_imports_no_command():
    code = """
import sys
from controller_service.cli import main

main(["--help"], standalone_mode=False)
heavy = {"governor_bench", "numpy", "aiohttp", "pyarrow", "rich", "sglang", "zmq", "msgspec"}
sys.stderr.write(" ".join(heavy & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "simulate" in ran.stdout
    assert ran.stderr == ""


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("name", ["lacking", "odd"])
def test_a_command_that_cannot_load_says_what_to_install(name):
    for arguments in ((name,), (name, "--quick", "x"), (name, "--help")):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "pip install 'sglang-governor[bench]'" in result.output


@pytest.mark.usefixtures("offered")
def test_commands_that_ship_cannot_be_replaced():
    assert "hijacked" not in run("status", "--controller", NOBODY).output


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path):
    file = tmp_path / "governor.yaml"
    file.write_text("policy: cap:2\nlease_steps: 8\n")
    config = load_config(file, {"policy": "off", "predictor": None})
    assert (config.policy, config.lease_steps, config.predictor) == ("off", 8, "corrected-linear")


def test_an_empty_file_is_all_defaults(tmp_path):
    file = tmp_path / "governor.yaml"
    file.write_text("# nothing yet\n")
    assert load_config(file, {}) == ControllerConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("polcy: taper", "did you mean 'policy'"),
        ("zzz: 1", "did you mean"),
        ("3: 1", "no setting 3"),
        ("lease_steps: 0", "lease_steps"),
        ("lease_steps: many", "lease_steps"),
        ("http_allow_remote: 1", "http_allow_remote"),
        ("- a\n- list", "mapping"),
        ("a: [", "not YAML"),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("[" * 20_000, "not YAML"),
        ("# " + "x" * 70_000, "larger than"),
    ],
)
def test_a_bad_file_is_explained(tmp_path, text, says):
    file = tmp_path / "governor.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load_config(file, {})
    assert str(file) in str(error.value)


def test_a_missing_file_is_explained(tmp_path):
    result = run("serve", "--config", str(tmp_path / "none.yaml"))
    assert result.exit_code == 1
    assert "No such file" in result.output


def test_policy_off_in_a_file_is_the_policy_off(tmp_path):
    file = tmp_path / "governor.yaml"
    file.write_text("policy: off\nhttp_allow_remote: on\n")
    config = load_config(file, {})
    assert (config.policy, config.http_allow_remote) == ("off", True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("policy: true", "policy: expected a text of 1 to 256 characters, got true; quote it"),
        ("log_level: loud", "log_level: expected one of debug, error, info, warning, got 'loud'"),
        ("lease_steps: 2\npolicy: taper\nlease_steps: 3", "line 3: 'lease_steps' is set twice"),
    ],
)
def test_an_error_in_a_file_names_setting_and_remedy(tmp_path, text, says):
    file = tmp_path / "governor.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(file, {})
    assert f"{file}: {says}" in str(error.value)


def test_a_flag_that_cannot_be_used_is_named_as_a_flag():
    with pytest.raises(ConfigError, match=r"^--log-level: expected one of .*, got 'loud'$"):
        load_config(None, {"log_level": "loud"})


def test_every_variable_that_serve_reads_is_in_its_help():
    help_text = run("serve", "--help").output
    assert all(variable in help_text for variable in VARIABLES.values())


def test_a_variable_that_serve_does_not_read_is_named_and_the_nearest_that_it_does():
    environ = {
        "GOVERNOR_POLICY": "off",
        "GOVERNOR_POLCY": "off",
        "GOVERNOR_MAX_PARKED_STEPS": "3",
        "GOVERNOR_KEY_FILE": "",
        "HOME": "/",
    }
    assert unread_variables(environ) == [
        "GOVERNOR_MAX_PARKED_STEPS",
        "GOVERNOR_POLCY (did you mean GOVERNOR_POLICY?)",
    ]


def test_what_kubernetes_and_the_other_commands_use_is_not_named():
    names = ("SERVICE_HOST", "PORT", "PORT_9470_TCP", "HTTP_SERVICE_PORT", "SERVICE_PORT_HTTP")
    ours = ("CONTROLLER_URL", "CLUSTER", "HTTP_TOKEN_FILE")
    assert unread_variables({f"GOVERNOR_{name}": "x" for name in (*names, *ours)}) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "logs", "-o", "/proc/xx"),
        ("fit", "logs", "-o", "model", "--json", "/proc/xx.json"),
        ("log", "export", "logs", "-o", "/proc/xx.csv"),
        ("simulate", "--json", "/proc/xx.json"),
        ("profile", "--url", NOBODY, "-o", "/proc/xx.json"),
    ],
)
def test_what_cannot_be_written_is_named_before_the_work_with_what_helps(
    arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "/proc/xx" in result.output
    assert "cannot be written" in result.output
    assert "name one in a folder that you may write to" in result.output


def test_profile_without_a_controller_says_what_to_do(tmp_path):
    output = ("-o", str(tmp_path / "p.json"))
    result = run("profile", "--url", NOBODY, "--controller", NOBODY, *output)
    assert result.exit_code == 1
    assert "does not answer" in result.output
    assert "governor serve" in result.output


@pytest.mark.parametrize(
    "program",
    [
        ("governor_protos.schema",),
        ("controller_service", "policy", "list"),
        ("controller_service", "policy", "show", "laps_sd"),
        ("controller_service", "serve", "--help"),
    ],
    ids=" ".join,
)
def test_a_reader_that_leaves_early_sees_no_traceback(program):
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", *program], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert ran.stderr == b""
