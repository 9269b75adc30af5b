"""``governor eval speculation``: how many tokens to draft, for whom."""
