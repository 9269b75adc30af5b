"""Turning a decision into what one step does. Pure: no SGLang, no clock, no socket."""
