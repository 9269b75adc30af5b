"""Peers of different versions, and restarts while users are served."""
