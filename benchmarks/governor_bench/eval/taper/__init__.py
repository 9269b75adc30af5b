"""TAPER's table: the published policy, its baselines, its ablations, and what goes past it."""
