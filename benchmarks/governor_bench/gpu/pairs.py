"""Stages that compare a stock with a governed engine.

Where two engines fit they stand side by side and take turns, so that drift of the machine falls on
both. Where they do not - 32B parameters take most of an H100 or H200 - an engine cannot be made
stock by a switch of its policy, as its hooks stay. So all stock halves are measured first, in one
start and one stage, and saved; the governed engine follows. What drifts in between is then in the
comparison, which is why the result says which of the two it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from governor_bench.gpu.figures import Figures, StockHalves
from governor_bench.gpu.results import read, write
from governor_bench.gpu.rig import Engine, flush
from governor_bench.gpu.stage import Context, Needs
from governor_bench.gpu.target import Sizes
from governor_bench.servers import Controller


class Side(NamedTuple):
    """One of the two engines."""

    name: str
    engine: Engine
    controller: Controller | None
    """None of the stock one."""


class Pair(NamedTuple):
    """How two engines are compared."""

    name: str
    half_type: Any
    """What one round on one side gives; a strict struct."""
    rounds: Callable[[Sizes], int]
    half: Callable[[Context, Side, int], Any]
    join: Callable[[Context, Sequence[Any], Sequence[Any]], Figures]
    """From the halves of both sides, stock first."""


def compare(pair: Pair, context: Context) -> Figures:
    """Both halves, in turns where both engines fit.

    Raises:
        Needs: they do not fit, and the stock halves were not measured.
    """
    count = pair.rounds(context.sizes)
    if not context.sizes.beside:
        stock = _saved(pair, context)
        governed = [_half(pair, context, governed_side(context), at) for at in range(count)]
        return pair.join(context, stock, governed)
    sides = (Side("stock", context.rig.stock(), None), governed_side(context))
    halves: dict[str, list[Any]] = {side.name: [] for side in sides}
    for number in range(count):
        # Who goes first alternates: whoever follows finds a warmer machine.
        for side in sides if number % 2 == 0 else sides[::-1]:
            halves[side.name].append(_half(pair, context, side, number))
    return pair.join(context, halves["stock"], halves["governed"])


def stock_halves(pairs: Sequence[Pair], context: Context) -> StockHalves:
    """Measure and save the stock half of every one of ``pairs``."""
    side = Side("stock", context.rig.stock(), None)
    names = []
    for pair in pairs:
        rounds = range(pair.rounds(context.sizes))
        halves = [_half(pair, context, side, number) for number in rounds]
        write(context.folder / _file(pair), halves)
        names.append(_file(pair))
    return StockHalves(tuple(names))


def governed_side(context: Context) -> Side:
    """The governed engine as one of two."""
    governed = context.rig.governed()
    return Side("governed", governed.engine, governed.controller)


def _half(pair: Pair, context: Context, side: Side, number: int) -> Any:
    context.tell(f"{pair.name}: {side.name}, round {number + 1}")
    flush(side.engine, side.engine.url)
    return pair.half(context, side, number)


def _saved(pair: Pair, context: Context) -> list[Any]:
    path = context.folder / _file(pair)
    if not path.exists():
        raise Needs("stage stock must be done first: two engines do not fit beside each other")
    halves: list[Any] = read(path, list[pair.half_type])  # type: ignore[name-defined]
    return halves


def _file(pair: Pair) -> str:
    return f"stock-{pair.name}.json"
