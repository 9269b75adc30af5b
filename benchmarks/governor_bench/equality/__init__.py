"""Is governed output token-identical to stock output? The master check."""
