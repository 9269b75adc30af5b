"""Who may change something over HTTP, and where the token is kept."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from governor_bench.profiling.engine import ControllerApi, ProfilingFailed
from governor_protos.private_file import SecretFileError, read_private
from hypothesis import given
from hypothesis import strategies as st

from controller_service.cli import main
from controller_service.http_gate import Gate, read_token
from controller_service.http_refused import Refused

TOKEN = "kT3_9f-Zq.0aB~71/x+="  # noqa: S105 - opens nothing but these tests
EVERYTHING_THAT_CHANGES = [
    ("PUT", "/v1/policy", b'{"policy": "off"}'),
    ("PUT", "/v1/model", b'{"path": "/nowhere"}'),
    ("POST", "/v1/model/rollback", b"{}"),
]


@pytest.fixture
def token_file(tmp_path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    return file


def ask(url: str, method: str = "GET", body: bytes | None = None, authorization: str = ""):
    headers = {"authorization": authorization} if authorization else {}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def test_with_a_token_changes_need_it_and_reading_does_not(launch, token_file):
    controller = launch("--http-token-file", str(token_file), "--policy", "eager")
    url = controller.http
    for method, path, body in EVERYTHING_THAT_CHANGES:
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xe9"):
            status, answer, headers = ask(url + path, method, body, wrong)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert json.loads(answer)["error"]["field"] == "authorization"
            assert TOKEN not in answer
        assert ask(url + path, method, body, f"Bearer {TOKEN}")[0] != 401
    for path in ("/healthz", "/readyz", "/metrics", "/v1/status", "/v1/model"):
        status, answer, _ = ask(url + path)
        assert (status, TOKEN in answer) == (200, False)
    assert json.loads(ask(url + "/v1/status")[1])["policy"] == "off"
    assert ask(url + "/v1/policy", "PUT", b" " * 70_000)[0] == 401  # not even read
    assert TOKEN not in controller.stop()[1]


def test_beyond_loopback_nothing_is_changed_without_a_token(launch):
    controller = launch("--http", "0.0.0.0:0", "--http-allow-remote", "--policy", "eager")
    url = f"http://127.0.0.1:{controller.http.rpartition(':')[2]}"
    for method, path, body in EVERYTHING_THAT_CHANGES:
        status, answer, _ = ask(url + path, method, body, f"Bearer {TOKEN}")
        assert status == 403
        assert "--http-token-file" in json.loads(answer)["error"]["message"]
    assert json.loads(ask(url + "/v1/status")[1])["policy"] == "eager"


def test_beyond_loopback_the_token_is_what_counts(launch, token_file):
    flags = ("--http", "0.0.0.0:0", "--http-allow-remote", "--http-token-file", str(token_file))
    controller = launch(*flags)
    url = f"http://127.0.0.1:{controller.http.rpartition(':')[2]}"
    method, path, body = EVERYTHING_THAT_CHANGES[0]
    assert ask(url + path, method, body)[0] == 401
    assert ask(url + path, method, body, f"Bearer {TOKEN}")[0] == 200


def test_the_command_sends_the_token(launch, token_file):
    controller = launch("--http-token-file", str(token_file), "--policy", "eager")
    command = ["policy", "set", "off", "--controller", controller.http]
    refused = CliRunner().invoke(main, command)
    assert (refused.exit_code, "--token-file" in refused.output) == (1, True)
    allowed = CliRunner().invoke(main, [*command, "--token-file", str(token_file)])
    assert "policy: off" in allowed.output
    by_variable = CliRunner().invoke(
        main,
        ["model", "rollback", "--controller", controller.http],
        env={"GOVERNOR_HTTP_TOKEN_FILE": str(token_file)},
    )
    assert "token" not in by_variable.output
    token_file.chmod(0o644)
    told = CliRunner().invoke(main, [*command, "--token-file", str(token_file)])
    assert (told.exit_code, "chmod 600" in told.output) == (1, True)


@given(st.text(max_size=40))
def test_nothing_but_the_token_opens_the_gate(text):
    gate = Gate(TOKEN.encode(), loopback=True)
    for authorization in (text, f"Bearer {text}"):
        if authorization.split(" ", 1)[-1].strip() == TOKEN:
            continue
        with pytest.raises(Refused) as refused:
            gate.check(authorization)
        assert refused.value.status == 401
    gate.check(f"bearer {TOKEN}")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o602, 0o601])
def test_a_token_that_others_may_read_is_refused(launch, token_file, mode):
    token_file.chmod(mode)
    with pytest.raises(SecretFileError, match=f"http_token_file: .*chmod 600 {token_file}"):
        read_token(token_file)


@pytest.mark.parametrize(
    "text", ["", "short", "two words that are long enough", "x" * 600, "quotes'" * 5, "x" * 20_000]
)
def test_what_is_no_token_is_refused_and_not_repeated(token_file, text):
    token_file.write_text(text)
    with pytest.raises(SecretFileError, match="http_token_file") as refused:
        read_token(token_file)
    assert not text or text not in str(refused.value)


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(SecretFileError, match="setting: "):
            read_private(path, "setting")


def test_an_unusable_token_ends_the_start(launch, token_file):
    token_file.write_text("hunter2")
    code, log = launch("--http-token-file", str(token_file)).wait()
    assert (code, len(log.strip().splitlines())) == (1, 1)
    assert "http_token_file" in log
    assert "hunter2" not in log


def test_profiling_may_borrow_the_policy_with_the_token(launch, token_file):
    controller = launch("--http-token-file", str(token_file), "--policy", "eager")
    with pytest.raises(ProfilingFailed, match="401"):
        ControllerApi(controller.http).set_policy("off")
    borrower = ControllerApi(controller.http, TOKEN)
    borrower.set_policy("off")
    assert borrower.policy() == "off"
