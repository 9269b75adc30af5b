"""How the client commands talk to a controller: its HTTP API, with the standard library."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any
from urllib import request
from urllib.error import HTTPError, URLError

import click
import msgspec

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


def call(
    controller: str,
    path: str,
    body: Any = None,
    *,
    method: str = "PUT",
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """GET ``path``, or send ``body`` to it as JSON.

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
    try:
        with request.urlopen(asked, timeout=timeout_s) as answer:  # noqa: S310 - as above
            return msgspec.json.decode(answer.read(MAX_ANSWER_BYTES))
    except HTTPError as error:
        raise click.ClickException(_reason(error)) from error
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise click.ClickException(
            f"no controller at {controller} ({reason}); start one with 'governor serve', "
            "or name it with --controller"
        ) from error
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{controller} is not a Governor controller") from error


class _Problem(msgspec.Struct):
    message: str


class _Answer(msgspec.Struct):
    error: _Problem


def _reason(error: HTTPError) -> str:
    try:
        return msgspec.json.decode(error.read(MAX_ANSWER_BYTES), type=_Answer).error.message
    except msgspec.DecodeError:
        return f"{error.url}: {error.code} {error.reason}"
