"""Step-time profiles: how long a step of a named engine takes."""
