"""Names that are almost those of Governor's request fields.

A misspelt field would be carried along and do nothing, so a near miss is refused by name. Clients
have names of their own beside Governor's, so a name has to be very near.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

from sglang_patch.fields import FIELDS

MAX_CHARS = 32
"""No longer name is near."""
MOST_NAMES = 256
"""An object with more names holds data. Its names are not compared: each takes longer to compare
than to parse, and all other requests wait meanwhile."""
CUTOFF = 0.905
"""One letter more, less or other in a name of eleven. ``projected`` is no miss of ``protected``."""
SWITCH = "GOVERNOR_CHECK_FIELD_NAMES=false lets such names pass"
"""What an error about a name adds for the operator."""
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")


@lru_cache(maxsize=1024)
def near(name: str) -> str | None:
    """The field of Governor that ``name`` is almost, but not quite; None if there is none.

    Near are the field's words or letters in another order or another case, a name of which words
    were left out (two remain at least, the first among them), and typing errors.
    """
    if name in FIELDS or not 0 < len(name) <= MAX_CHARS:
        return None
    words = [word.lower() for word in _WORD.findall(name)]
    plain = "_".join(words)
    for field in FIELDS:
        if sorted(plain) == sorted(field) or _leaves_words_out(words, field.split("_")):
            return field
    found = difflib.get_close_matches(plain, FIELDS, n=1, cutoff=CUTOFF)
    return found[0] if found else None


def _leaves_words_out(words: Sequence[str], whole: Sequence[str]) -> bool:
    if not 2 <= len(words) < len(whole) or words[0] != whole[0]:
        return False
    remaining = iter(whole)
    return all(word in remaining for word in words)
