"""``governor check frames``: malformed frames against a real controller and a real engine's end."""
