"""Tier E: an emulated engine that speculates, with few places, and its controller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from governor_bench.eval.emulated_pair import EmulatedPair, emulated_pair
from governor_bench.eval.laps_sd.judge import judge
from governor_bench.eval.laps_sd.setting import DRAFT_TOKENS, Outcome, Setting, workload_for

TRAINING = "fcfs"
"""Policy under which the predictor sees steps before the first run."""
TRAINING_S = 10.0


class LapsSdRig:
    """Runs settings one after the other; predictor and curves of length keep what they learn."""

    def __init__(self, pair: EmulatedPair) -> None:
        self._pair = pair

    def train(self, settings: Sequence[Setting]) -> None:
        """Let the predictor see steps under each setting's load."""
        for setting in settings:
            self._pair.serve(TRAINING, workload_for(setting), duration_s=TRAINING_S)

    def run(self, setting: Setting) -> Outcome:
        """Run ``setting``.

        Raises:
            RunFailed: a request failed.
        """
        end_s = setting.timing.end_s
        seen = self._pair.observe(setting.policy, workload_for(setting), duration_s=end_s)
        rows = [item["rows"] for item in seen.steps if not item["prefill_tokens"]]
        return judge(
            setting,
            seen.served,
            end_s=end_s,
            preemptions=seen.counted.retracted_rows,
            rows=sum(rows) / max(1, len(rows)),
            times_real_time=end_s / seen.took_s,
            host_limited_share=seen.host_limited_share,
            late_share=seen.late_share,
        )


@contextlib.contextmanager
def laps_sd_rig(
    setting: Setting, scale: float, on_stage: Callable[[str], None]
) -> Iterator[LapsSdRig]:
    """Start controller and engine; both end with the block.

    Args:
        setting: names the profile and the predictor of all that will run.
    """
    with emulated_pair(
        setting.profile,
        setting.predictor,
        scale,
        on_stage,
        policy=TRAINING,
        most_rows=setting.places,
        governor={"EMULATED_DRAFT_LENGTHS": f"0,{DRAFT_TOKENS}"},
        arguments=(
            *("--speculative-algorithm", "EMULATED"),
            *("--speculative-num-steps", str(DRAFT_TOKENS)),
        ),
    ) as pair:
        yield LapsSdRig(pair)
