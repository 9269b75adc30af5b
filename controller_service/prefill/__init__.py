"""Prefill: who waits for it, how soon it is due, and what it takes from those who decode."""
