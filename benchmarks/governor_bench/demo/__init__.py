"""``make demo``: one engine, one load, three policies in turns."""
