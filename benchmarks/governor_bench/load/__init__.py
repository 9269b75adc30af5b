"""Requests as a client sends them, the client, and what came back."""
