"""Which socket identity is which engine; bounded, and forgetful of the silent."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from governor_protos.messages import Hello

from controller_service.session import EngineSession

logger = logging.getLogger(__name__)

NAME_KEPT_S = 10.0
"""Who was heard since then is taken to be alive. An idle engine is heard every 5 s."""
DORMANT = 32
"""Silent engines whose predictor and records are kept in case they come back."""

Key = tuple[str, str]


class TooManyEngines(ValueError):
    """The controller serves as many engines as it may."""


class NameTaken(ValueError):
    """Another engine has this name and is alive."""


class _Seat:
    __slots__ = ("heard_s", "session")

    def __init__(self, session: EngineSession, heard_s: float) -> None:
        self.session = session
        self.heard_s = heard_s


class Sessions:
    """Sessions by socket identity.

    An engine that falls silent (an idle one sends no snapshots) loses its seat, not its session:
    when the same incarnation says hello again, its predictor is as good as it was.
    """

    def __init__(self, most: int, expiry_s: float) -> None:
        self._most = most
        self._expiry_s = expiry_s
        self._seats: dict[bytes, _Seat] = {}
        self._dormant: dict[Key, EngineSession] = {}  # longest silent first

    def __len__(self) -> int:
        return len(self._seats)

    def __iter__(self) -> Iterator[tuple[EngineSession, float]]:
        """Sessions, each with the time when it was last heard."""
        return ((seat.session, seat.heard_s) for seat in self._seats.values())

    def identities(self) -> list[bytes]:
        return list(self._seats)

    def hear(self, identity: bytes, now_s: float) -> EngineSession | None:
        """The session behind ``identity``, which has just been heard; ``None`` if there is none."""
        seat = self._seats.get(identity)
        if seat is None:
            return None
        seat.heard_s = now_s
        return seat.session

    def known(self, hello: Hello) -> EngineSession | None:
        """The session of this very incarnation, seated or dormant."""
        key = _key(hello)
        for seat in self._seats.values():
            if _key(seat.session.hello) == key:
                return seat.session
        return self._dormant.get(key)

    def admit(self, identity: bytes, hello: Hello, now_s: float) -> None:
        """Make way for the engine behind ``identity``: its older seat, if any, is vacated. So is
        the seat of an engine of the same name that has fallen silent.

        Raises:
            NameTaken: an engine of the same name is alive. Their steps would be mixed up.
            TooManyEngines: names the limit.
        """
        others = {name: seat for name, seat in self._seats.items() if name != identity}
        same_name = {
            name: seat
            for name, seat in others.items()
            if seat.session.hello.engine_id == hello.engine_id
        }
        for seat in same_name.values():
            silent_s = now_s - seat.heard_s
            if _key(seat.session.hello) != _key(hello) and silent_s < NAME_KEPT_S:
                raise NameTaken(
                    f"another engine of the name {hello.engine_id} was heard {silent_s:.1f} s ago; "
                    "give each engine a name of its own with GOVERNOR_ENGINE_ID"
                )
        if identity not in self._seats and len(others) - len(same_name) >= self._most:
            raise TooManyEngines(
                f"this controller serves {self._most} engines already; raise max_engines or add a "
                "controller"
            )
        for name in same_name:
            self._set_aside(name)

    def seat(self, identity: bytes, session: EngineSession, now_s: float) -> None:
        """Give ``session`` the seat of ``identity``, which was admitted."""
        self._dormant.pop(_key(session.hello), None)
        self._seats[identity] = _Seat(session, now_s)

    def forget(self, identity: bytes) -> EngineSession | None:
        """The engine said goodbye."""
        seat = self._seats.pop(identity, None)
        return None if seat is None else seat.session

    def expire(self, now_s: float) -> None:
        """Vacate the seats of engines not heard for ``expiry_s``."""
        for identity, seat in list(self._seats.items()):
            if now_s - seat.heard_s < self._expiry_s:
                continue
            self._set_aside(identity)
            logger.info("engine %s: silent, session set aside", seat.session.hello.engine_id)

    def _set_aside(self, identity: bytes) -> None:
        session = self._seats.pop(identity).session
        self._dormant[_key(session.hello)] = session
        if len(self._dormant) > DORMANT:
            del self._dormant[next(iter(self._dormant))]


def _key(hello: Hello) -> Key:
    return hello.engine_id, hello.incarnation
