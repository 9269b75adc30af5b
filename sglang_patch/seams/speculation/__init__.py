"""Seam: how much SGLang drafts at a step, and which of it is verified.

The EAGLE family can change its draft length from step to step by a rule of its own
(``--speculative-adaptive``): at the start it builds whatever each length of a list needs, and
before a step it asks an object how long to draft. That object is replaced, in the worker's
instance, by one that does as it is told (``lengths``). Between drafting and verification the worker
chooses the nodes that are verified (``choosing``), by the draft's own chances where there is a
choice (``chances``), and cuts the links to all others; where the attention can, the target does not
compute those at all (``ragged``). Nothing else of a step changes: SGLang drafts, accepts and
accounts as it does under its own rule.

N-gram engines have trees of one width a step, ready made, that are cut to it (``ngram``).

``worker`` puts this together to a worker's class. Every worker that takes orders shows the same of
itself (``drafting``; ``model_drafts`` for the EAGLE family), and ``notes`` keeps account of what
was verified.
"""

from sglang_patch.seams.speculation.chances import after_organize_draft_results
from sglang_patch.seams.speculation.choosing import cut
from sglang_patch.seams.speculation.drafting import draft_lengths, drafting, tell
from sglang_patch.seams.speculation.lengths import SWITCHED
from sglang_patch.seams.speculation.notes import Drafted, drafted, note, note_drafts
from sglang_patch.seams.speculation.ragged import only
from sglang_patch.seams.speculation.worker import (
    around_adaptive_unsupported_reason,
    around_create_worker,
)

__all__ = [
    "SWITCHED",
    "Drafted",
    "after_organize_draft_results",
    "around_adaptive_unsupported_reason",
    "around_create_worker",
    "cut",
    "draft_lengths",
    "drafted",
    "drafting",
    "note",
    "note_drafts",
    "only",
    "tell",
]
