"""``governor bench engines``: how many engines one controller serves in time."""
