"""How attention is told to verify some nodes of each row only."""

from __future__ import annotations

from typing import Any

KEPT_NODES = "governor_kept_nodes"
"""Attribute of a pass's verification input: (rows, nodes) bool, the nodes that the pass computes.
Its tokens, positions and slots are those of these nodes; lengths and mask are still of them all."""


def kept_nodes(spec_info: Any) -> Any:
    """The nodes that a pass computes; None: all of them."""
    return getattr(spec_info, KEPT_NODES, None)


def takes_kept_nodes(backend: Any) -> bool:
    """Whether an attention backend of SGLang's looks at :data:`KEPT_NODES`."""
    return bool(getattr(backend, "verifies_kept_nodes", False))
