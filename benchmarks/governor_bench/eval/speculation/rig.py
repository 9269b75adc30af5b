"""Tier E: one emulated engine that drafts, and a controller that knows the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import msgspec

from governor_bench.eval.emulated_pair import EmulatedPair, emulated_pair
from governor_bench.eval.speculation.controller import MODULE
from governor_bench.eval.speculation.recorded import of_decode, step_figures
from governor_bench.eval.speculation.setting import (
    LENGTHS,
    NO_TARGET_MS,
    Outcome,
    Setting,
    judge,
    judged_requests,
    workload_of,
)

MOST_ROWS = 512
TRAINING = ("fixed_draft:0", "fixed_draft:3", "fixed_draft:10", "fixed_draft:1")
"""Policies under which the predictor sees steps before the first run, and what a draft costs."""


class SpeculationRig:
    """Runs settings one after the other; the predictor keeps what it learns."""

    def __init__(self, pair: EmulatedPair) -> None:
        self._pair = pair

    def train(self, settings: Sequence[Setting]) -> None:
        """Let the predictor see steps under each setting's load."""
        for setting in settings:
            for policy in TRAINING:
                self._pair.serve(policy, workload_of(setting), enough=setting.load)

    def run(self, setting: Setting) -> Outcome:
        """Run ``setting``.

        Raises:
            RunFailed: not all requests were served.
        """
        seen = self._pair.observe(
            setting.policy, workload_of(setting), enough=setting.load + judged_requests(setting)
        )
        virtual_s = max(item.last_token_s or 0.0 for item in seen.served)
        steps = step_figures(
            of_decode(seen.steps), self._pair.scale, times_real_time=virtual_s / seen.took_s
        )
        return judge(
            setting,
            seen.served,
            msgspec.structs.replace(
                steps,
                host_limited_share=seen.host_limited_share,
                late_share=seen.late_share,
            ),
        )


@contextlib.contextmanager
def speculation_rig(
    setting: Setting, scale: float, on_stage: Callable[[str], None]
) -> Iterator[SpeculationRig]:
    """Start controller and engine; both end with the block.

    Args:
        setting: names the profile and the predictor of all that will run.
    """
    with emulated_pair(
        setting.profile,
        setting.predictor,
        scale,
        on_stage,
        policy="fixed_draft:0",
        most_rows=MOST_ROWS,
        controller=(MODULE,),
        governor={
            "DEFAULT_TPOT_SLO_MS": str(NO_TARGET_MS),
            "EMULATED_DRAFT_LENGTHS": ",".join(map(str, LENGTHS)),
        },
        arguments=(
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(LENGTHS[-1])),
        ),
    ) as pair:
        yield SpeculationRig(pair)
