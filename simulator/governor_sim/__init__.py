"""A discrete-event simulator of a governed engine."""
