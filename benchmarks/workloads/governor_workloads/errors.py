"""What goes wrong with a workload that somebody wrote or recorded."""

from __future__ import annotations


class WorkloadError(ValueError):
    """A mix, a trace or an option is unusable; the message names the field and the remedy."""
