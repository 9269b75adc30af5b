"""How the client commands talk to a controller: its HTTP API, with the standard library."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError

import click
import msgspec
from governor_protos.private_file import SecretFileError

from controller_service.http_gate import read_token
from controller_service.program import governor

DEFAULT_CONTROLLER = "http://127.0.0.1:9470"
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 16 << 20

controller_option = click.option(
    "--controller",
    default=DEFAULT_CONTROLLER,
    show_default=True,
    envvar="GOVERNOR_CONTROLLER_URL",
    metavar="URL",
    help="HTTP address of the controller.",
)

token_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar="GOVERNOR_HTTP_TOKEN_FILE",
    help="File of the token that the controller asks for, if it does.",
)


def call(
    controller: str,
    path: str,
    body: Any = None,
    *,
    token_file: Path | None = None,
    method: str = "PUT",
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """GET ``path``, or send ``body`` to it as JSON.

    Args:
        token_file: file of the token to send along; none by default.

    Raises:
        click.ClickException: nothing listens, or the controller refused; one line, with a remedy.
    """
    if not controller.startswith(("http://", "https://")):
        raise click.ClickException(f"--controller {controller}: expected http://HOST:PORT")
    data = None if body is None else msgspec.json.encode(body)
    asked = request.Request(  # noqa: S310 - the scheme was checked
        controller.rstrip("/") + path,
        data=data,
        method="GET" if body is None else method,
        headers={"content-type": "application/json"},
    )
    if token_file is not None:
        # Not sent on to wherever the answer might redirect.
        asked.add_unredirected_header("Authorization", f"Bearer {token_in(token_file)}")
    try:
        with request.urlopen(asked, timeout=timeout_s) as answer:  # noqa: S310 - as above
            return msgspec.json.decode(answer.read(MAX_ANSWER_BYTES))
    except HTTPError as error:
        raise click.ClickException(_reason(error)) from error
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise click.ClickException(
            f"no controller at {controller} ({reason}); start one with '{governor()} serve', "
            "or name it with --controller"
        ) from error
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{controller} is not a Governor controller") from error


def token_in(path: Path) -> str:
    """The token in a file.

    Raises:
        click.ClickException: the file cannot be used; one line, with a remedy.
    """
    try:
        return read_token(path).decode("ascii")
    except SecretFileError as error:
        raise click.ClickException(f"--token-file: {error}") from None


class _Problem(msgspec.Struct):
    message: str


class _Answer(msgspec.Struct):
    error: _Problem


def _reason(error: HTTPError) -> str:
    try:
        return msgspec.json.decode(error.read(MAX_ANSWER_BYTES), type=_Answer).error.message
    except msgspec.DecodeError:
        return f"{error.url}: {error.code} {error.reason}"
