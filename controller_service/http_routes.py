"""A route that refuses what it does not know in a query, rather than ignore it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from controller_service.http_refused import Refused


class ApiRoute(Route):
    """
    Args:
        query: keys that the query of a request may have.
    """

    def __init__(self, path: str, endpoint: Any, *, query: Sequence[str] = (), **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        self._query = query

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_query(scope["query_string"].decode("latin-1"))
        await super().handle(scope, receive, send)

    def _check_query(self, text: str) -> None:
        """
        Raises:
            Refused: 400, a key that is not known or is there twice.
        """
        for key, times in Counter(key for key, _ in parse_qsl(text, True)).items():
            if key not in self._query:
                near = difflib.get_close_matches(key, self._query, n=1, cutoff=0.0)
                instead = f"did you mean {near[0]!r}?" if near else "leave it out: it takes none"
                raise Refused(400, key, f"{self.path} has no query key {key!r}; {instead}")
            if times > 1:
                raise Refused(400, key, f"{key!r} is in the query {times} times; keep one")
