"""TAPER exactly as the paper's loop reads, one row at a time, in plain Python.

Slow and literal on purpose: the policy that runs is checked against it.
"""

from __future__ import annotations

from collections import Counter
from math import log1p

import numpy as np
from governor_protos.messages import Role, RowFlag

EPSILON_S = 1e-9

Row = dict[str, float]


def parkable(row: Row) -> bool:
    return row["role"] == Role.OPPORTUNISTIC and row["flags"] == 0 and row["group_id"] != 0


def running(row: Row) -> bool:
    return not int(row["flags"]) & RowFlag.UNBORN


def deadline(row: Row) -> float:
    tpot = np.float32(row["tpot_slo_s"])
    if row["parked_steps"] > 0:
        return float(tpot)
    return float(tpot - max(np.float32(row["since_last_token_s"]), np.float32(0)))


def base_rows(rows: list[Row]) -> list[int]:
    """S0: every running row that may not be parked, and one row of each group without one."""
    base = [i for i, row in enumerate(rows) if running(row) and not parkable(row)]
    headed = {rows[i]["group_id"] for i in base}
    for group in {row["group_id"] for row in rows if parkable(row)} - headed:
        members = [i for i, row in enumerate(rows) if parkable(row) and row["group_id"] == group]
        base.append(min(members, key=lambda i: (deadline(rows[i]), rows[i]["output_tokens"], i)))
    return base


def taper(rows: list[Row], predict, utility: str, rho: float) -> tuple[set[int], float]:
    """Indices of the rows that advance, and the budget in seconds."""
    advancing = base_rows(rows)
    extras = [i for i, row in enumerate(rows) if parkable(row) and i not in advancing]
    n, context = len(advancing), sum(rows[i]["context_tokens"] for i in advancing)
    t0 = predict(float(n), float(context))
    due = [deadline(row) for row in rows if running(row) and row["parked_steps"] <= 0]
    slack = min(due, default=1e7)
    budget = t0 + rho * max(0.0, slack - t0)
    admitted: Counter[float] = Counter()

    def gain(row: Row) -> float:
        k = admitted[row["group_id"]]
        if utility == "log1p":
            return log1p(k + 1) - log1p(k)
        return max(row["priority"], 0.0) if utility == "priority" else 1.0

    while True:
        now = predict(float(n), float(context))
        feasible = []
        for i in extras:
            then = predict(float(n + 1), float(context + rows[i]["context_tokens"]))
            if then <= budget:
                score = gain(rows[i]) / (EPSILON_S + then - now)
                feasible.append((-score, rows[i]["context_tokens"], i))
        if not feasible:
            return set(advancing), budget
        best = min(feasible)[2]
        extras.remove(best)
        advancing.append(best)
        admitted[rows[best]["group_id"]] += 1
        n, context = n + 1, context + rows[best]["context_tokens"]
