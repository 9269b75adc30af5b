"""A mix and a seed turned into requests."""

from __future__ import annotations

import numpy as np

from governor_workloads.arrivals import Closed, arrival_times_s
from governor_workloads.demands import draw_demands
from governor_workloads.mix import Mix
from governor_workloads.spec import Workload, WorkRequest
from governor_workloads.streams import Attribute, stream


def generate(mix: Mix, seed: int) -> Workload:
    """Draw the requests of a mix. Equal mixes and seeds give equal workloads on every machine.

    Each attribute has a random stream of its own: changing one distribution, the number of requests
    or the rate leaves all other draws of request i as they were.

    Raises:
        WorkloadError: the mix is out of range, or the seed is negative.
    """
    mix = mix.checked()
    rng = stream(seed, Attribute.ARRIVALS)
    if isinstance(mix.arrivals, Closed):
        count = mix.requests or 0
        arrivals_s = np.zeros(count)
        thinks_s = mix.arrivals.thinks_s(stream(seed, Attribute.THINK), count)
        users = mix.arrivals.users
    else:
        arrivals_s = arrival_times_s(
            mix.arrivals, mix.phases, rng, requests=mix.requests, duration_s=mix.duration_s
        )
        thinks_s = np.zeros(len(arrivals_s))
        users = 0
    count = len(arrivals_s)
    prompts = mix.prompt_tokens.draw(stream(seed, Attribute.PROMPT), count)
    outputs = mix.output_tokens.draw(stream(seed, Attribute.SERIAL_OUTPUT), count)
    drawn = draw_demands(mix, seed, outputs)
    columns = zip(arrivals_s.tolist(), thinks_s.tolist(), prompts.tolist(), *drawn, strict=True)
    return Workload(
        name=mix.name,
        description=f"{mix.describe()}; seed {seed}",
        requests=tuple(
            WorkRequest(
                index=index,
                arrival_s=arrival_s,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                branches=branches,
                ttft_slo_s=target.ttft_slo_s,
                tpot_slo_s=target.tpot_slo_s,
                think_s=think_s,
            )
            for index, (
                arrival_s,
                think_s,
                prompt_tokens,
                branches,
                output_tokens,
                target,
            ) in enumerate(columns)
        ),
        arrivals="closed" if users else "open",
        users=users,
        seed=seed,
        acceptance=mix.acceptance,
    )
