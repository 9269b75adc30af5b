"""Requests, the client that sends them, and what is measured of them."""
