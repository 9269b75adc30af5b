"""Engine side of Governor: a plugin that SGLang loads through its own entry points.

Nothing here imports SGLang until Governor is configured, and only :mod:`sglang_patch.seams` and
:mod:`sglang_patch.platforms` ever do.
"""

__version__ = "0.1.0"
