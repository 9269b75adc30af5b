"""Parts of a policy that an engine cannot carry out, and why. Policies leave such engines alone."""

from __future__ import annotations

import msgspec
from governor_protos.messages import Hello

from controller_service.policies.base import Knob, Policy

_NEEDS = {
    Knob.BRANCHES: "branches",
    Knob.DRAFTS: "drafts",
    Knob.PREFILL: "prefill",
    Knob.ORDER: "prefill",
}
"""The actuator, in the contract's words, without which a part does nothing."""


class Unmet(msgspec.Struct, frozen=True):
    """One part of a policy that does nothing on one engine."""

    policy: str
    knob: str
    why: str

    def __str__(self) -> str:
        return f"{self.policy} does nothing there ({self.why})"


def unmet(policy: Policy, hello: Hello) -> tuple[Unmet, ...]:
    """What ``policy`` decides that the engine has no actuator for; empty if it has all."""
    found = []
    for part in policy.parts:
        if why := _why_not(part.kind.knob, hello):
            found.append(Unmet(part.kind.name, str(part.kind.knob), why))
    return tuple(found)


def _why_not(knob: Knob, hello: Hello) -> str:
    """Why a knob has no effect on an engine; empty if it has one."""
    if knob is Knob.DRAFTS and not hello.speculative_algorithm:
        return "the engine does not speculate"
    if knob is Knob.DRAFTS and (hello.drafting is None or not hello.draft_lengths):
        return "the engine's drafts cannot be told how long to be"
    if knob in (Knob.PREFILL, Knob.ORDER) and hello.chunked_prefill_tokens <= 0:
        return "the engine does not chunk its prefill"
    if _NEEDS[knob] not in hello.knobs:
        return f"the engine, of plugin {hello.plugin_version}, has no knob {_NEEDS[knob]!r}"
    return ""
