"""Policies by name, and how one is written: ``cap:2``, ``taper:utility=log1p,rho=0.6``; two that
decide about different things: ``taper_plus+turbospec``."""

from __future__ import annotations

import difflib
import logging
import re
from importlib import metadata

from governor_protos.limits import MAX_TEXT
from governor_protos.settings import BadSetting, read_settings

from controller_service.policies.adaptive_candidates import ADAPTIVE_CANDIDATES
from controller_service.policies.adaptive_chunk import ADAPTIVE_CHUNK
from controller_service.policies.base import Knob, NoConfig, Part, Policy, PolicyKind
from controller_service.policies.cap import CAP
from controller_service.policies.draft_tree import DRAFT_TREE
from controller_service.policies.eager import EAGER
from controller_service.policies.fcfs import FCFS
from controller_service.policies.fixed_chunk import FIXED_CHUNK
from controller_service.policies.fixed_draft import FIXED_DRAFT
from controller_service.policies.laps_sd import LAPS_SD
from controller_service.policies.las import LAS
from controller_service.policies.off import OFF
from controller_service.policies.random_park import RANDOM
from controller_service.policies.sjf import SJF
from controller_service.policies.taper import TAPER
from controller_service.policies.taper_plus import TAPER_PLUS
from controller_service.policies.turbospec import TURBOSPEC

logger = logging.getLogger(__name__)

ENTRY_POINTS = "governor.policies"
BRANCH_POLICIES = (OFF, CAP, EAGER, TAPER, TAPER_PLUS, RANDOM)
DRAFT_POLICIES = (TURBOSPEC, ADAPTIVE_CANDIDATES, DRAFT_TREE, FIXED_DRAFT)
PREFILL_POLICIES = (ADAPTIVE_CHUNK, FIXED_CHUNK)
ORDER_POLICIES = (LAPS_SD, SJF, LAS, FCFS)
BUILT_IN = {
    kind.name: kind
    for kind in (*BRANCH_POLICIES, *DRAFT_POLICIES, *PREFILL_POLICIES, *ORDER_POLICIES)
}

_ASKED = {Knob.ORDER: 0, Knob.DRAFTS: 2}
"""Which of them is asked before others. A draft is made for rows that advance, so branches cannot
be left until afterwards."""


class UnknownPolicy(ValueError):
    """No such policy, or settings that it does not have; the message names the remedy."""


def policy_kinds() -> dict[str, PolicyKind]:
    """All policies by name: those that ship, then those that installed packages offer.

    A third party cannot replace one that ships. One that does not load is left out and logged, so
    that it stands in nobody else's way.
    """
    kinds = dict(BUILT_IN)
    for name, point in _third_party().items():
        try:
            kinds[name] = _load(point)
        except UnknownPolicy as error:
            logger.warning("%s", error)
    return kinds


def parse_policy(text: str) -> Policy:
    """Read a policy as an operator writes it.

    Settings follow the name after ``:`` and are separated by ``:`` or ``,``; each is ``key=value``,
    or a bare value for the next field in order. Policies that decide about different things are
    joined by ``+`` and spend a step's time in the order in which they are written:
    ``adaptive_chunk+taper_plus+turbospec``; the order of service comes first and drafts last,
    however they are written. Where none decides about the branches, all advance.

    Raises:
        UnknownPolicy: names what is wrong and what could be written instead.
    """
    if len(text) > MAX_TEXT:
        raise UnknownPolicy(f"a policy is written in at most {MAX_TEXT} characters")
    parts: list[Part] = []
    for written in text.split("+"):
        part = _parse_part(written.strip())
        for other in parts:
            if other.kind.knob is part.kind.knob:
                raise UnknownPolicy(
                    f"policies {other.kind.name!r} and {part.kind.name!r} both decide about "
                    f"{part.kind.knob}; leave one of them out"
                )
        parts.append(part)
    if all(part.kind.knob is not Knob.BRANCHES for part in parts):
        parts.insert(0, Part(EAGER, NoConfig()))
    parts.sort(key=lambda part: _ASKED.get(part.kind.knob, 1))
    return Policy(tuple(parts), text.strip())


def policy_kind(name: str) -> PolicyKind:
    """The policy of that name, before it is configured.

    Raises:
        UnknownPolicy: names those that there are.
    """
    if (kind := BUILT_IN.get(name)) is not None:
        return kind
    third_party = _third_party()
    if name not in third_party:
        known = ", ".join([*BUILT_IN, *third_party])
        raise UnknownPolicy(f"no policy {name!r}; choose one of {known}")
    return _load(third_party[name])


def _parse_part(text: str) -> Part:
    name, *settings = re.split(r"[:,]", text)
    kind = policy_kind(name)
    try:
        config = read_settings(_by_field(kind, settings), kind.config_type, str, strict=False)
    except (BadSetting, ValueError) as error:
        example = f"; write it like {kind.usage!r}" if kind.usage else ""
        raise UnknownPolicy(f"policy {name!r}: {error}{example}") from error
    return Part(kind, config)


def _third_party() -> dict[str, metadata.EntryPoint]:
    points = metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in points if point.name not in BUILT_IN}


def _by_field(kind: PolicyKind, settings: list[str]) -> dict[str, str]:
    fields = kind.config_type.__struct_fields__
    values: dict[str, str] = {}
    for position, setting in enumerate(settings):
        key, equals, value = setting.partition("=")
        if not equals:
            if position >= len(fields):
                raise ValueError(
                    f"takes at most {len(fields)} settings, got {len(settings)}; "
                    f"'governor policy show {kind.name}' lists them"
                )
            key, value = fields[position], setting
        if key in values:
            raise ValueError(f"{key!r} is set twice; keep one")
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.0)
            instead = f"did you mean {near[0]!r}?" if near else "it has none"
            raise ValueError(f"no setting {key!r}; {instead}")
        values[key] = value
    return values


def _load(point: metadata.EntryPoint) -> PolicyKind:
    where = f"policy {point.name!r} from {point.value}"
    try:
        value = point.load()
    except Exception as error:
        raise UnknownPolicy(f"{where} does not import: {error}") from error
    if isinstance(value, PolicyKind):
        return value
    if callable(value):
        return PolicyKind(point.name, value, summary="from " + point.value)
    raise UnknownPolicy(f"{where} is neither a function nor a PolicyKind")
