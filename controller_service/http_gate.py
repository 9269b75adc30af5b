"""Who may change something over HTTP: whoever is on loopback, or has the token.

Reading is not gated: whether others can reach the API at all is decided by the address that it
listens at.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path

from governor_protos.private_file import SecretFileError, read_private

from controller_service.http_refused import Refused

SETTING = "http_token_file"
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/=-]{16,512}")
"""What a bearer token may consist of (RFC 6750), and long enough not to be guessed."""


def read_token(path: Path) -> bytes:
    """The token in a file.

    Raises:
        SecretFileError: open to others, or no token.
    """
    token = read_private(path, SETTING).strip()
    if not _TOKEN.fullmatch(token):
        raise SecretFileError(
            f"{SETTING}: {path} must hold one line of 16 to 512 letters, digits or any of "
            "'._~+/=-', such as 'openssl rand -hex 32' prints"
        )
    return token


class Gate:
    """Lets changes through.

    Args:
        token: what a caller must present; none is asked for if empty.
        loopback: whether the API is reachable from this machine alone. Where it is not, nothing
            can be changed without a token.
    """

    def __init__(self, token: bytes, *, loopback: bool) -> None:
        self._token = token
        self._loopback = loopback

    def check(self, authorization: str) -> None:
        """
        Args:
            authorization: the request's header of that name; empty if it has none.

        Raises:
            Refused: 401 without the token, 403 where no token would help.
        """
        if not self._token:
            if self._loopback:
                return
            raise Refused(
                403,
                SETTING,
                "nothing can be changed from beyond loopback without a token: start the controller "
                "with --http-token-file, or let --http listen on 127.0.0.1",
            )
        scheme, _, presented = authorization.partition(" ")
        sent = presented.strip().encode("utf-8", "replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(sent, self._token):
            raise Refused(
                401,
                "authorization",
                "changing something needs the controller's token: 'Authorization: Bearer TOKEN', "
                "or --token-file FILE (GOVERNOR_HTTP_TOKEN_FILE) with the governor command",
            )
