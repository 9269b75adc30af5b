"""``governor check learning``: the loop from log to model and back, around a live engine."""
