"""Tier E: an emulated engine of one schedule, and its controller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from governor_bench.eval.chunk.judge import judge
from governor_bench.eval.chunk.setting import Outcome, Setting, workload_for
from governor_bench.eval.emulated_pair import EmulatedPair, emulated_pair

TRAINING = ("eager", "fixed_chunk:512")
"""Policies under which the predictor sees steps before the first run."""
TRAINING_S = 8.0


class ChunkRig:
    """Runs settings of one schedule, one after the other; the predictor keeps what it learns."""

    def __init__(self, pair: EmulatedPair) -> None:
        self._pair = pair

    def train(self, settings: Sequence[Setting]) -> None:
        """Let the predictor see steps under each setting's load."""
        for setting in settings:
            for policy in TRAINING:
                self._pair.serve(policy, workload_for(setting), duration_s=TRAINING_S)

    def run(self, setting: Setting) -> Outcome:
        """Run ``setting``.

        Raises:
            RunFailed: a request failed.
        """
        workload, end_s = workload_for(setting), setting.timing.end_s
        seen = self._pair.observe(setting.policy, workload, duration_s=end_s)
        tokens = [item["prefill_tokens"] for item in seen.steps if item["prefill_tokens"]]
        return judge(
            setting,
            workload,
            seen.served,
            end_s=end_s,
            times_real_time=end_s / seen.took_s,
            prefill_tokens_per_step=sum(tokens) / max(1, len(tokens)),
            host_limited_share=seen.host_limited_share,
            late_share=seen.late_share,
        )


@contextlib.contextmanager
def chunk_rig(
    setting: Setting, scale: float, on_stage: Callable[[str], None]
) -> Iterator[ChunkRig]:
    """Start controller and engine; both end with the block.

    Args:
        setting: names profile, predictor and schedule of all that will run.
    """
    with emulated_pair(
        setting.profile,
        setting.predictor,
        scale,
        on_stage,
        overlap=not setting.mixes_chunks,
        arguments=("--enable-mixed-chunk",) if setting.mixes_chunks else (),
    ) as pair:
        yield ChunkRig(pair)
