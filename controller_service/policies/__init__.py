"""Policies: which rows of a step advance, and how much is drafted. One file a policy; this page is
how to add yours.

A policy is a pure function ``(state, predictor, config) -> StepPlan``. It sees the batch as numpy
columns (:class:`~controller_service.state.StepState`), asks the predictor what a step costs, and
marks the rows that sit this step out. It reads no clock, no socket and no file, so the controller,
the simulator and the tests run the same code. Whatever it marks, only opportunistic rows that the
engine has not pinned are parked.

Yours, in a package of your own (``my_policies.py``)::

    import numpy as np
    from controller_service.policies.base import StepPlan, PolicyKind

    def shortest(state, predictor, config):
        \"\"\"Park every extra branch whose context is above the mean.\"\"\"
        long = state.context_tokens > state.running_context_tokens / max(state.running_rows, 1)
        return StepPlan(park=state.parkable & long)

    SHORTEST = PolicyKind("shortest", shortest, summary="parks long branches")

and in its ``pyproject.toml``::

    [project.entry-points."governor.policies"]
    shortest = "my_policies:SHORTEST"

Then ``governor policy set shortest``. A bare function works as the entry point's value, too; a
:class:`~controller_service.policies.base.PolicyKind` adds a config struct (``shortest:limit=3``)
and standing orders. To change one that ships, edit its file here: :mod:`.taper` is the one to read.
"""
