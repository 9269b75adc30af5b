"""A folder for ``PYTHONPATH``: processes started with it have a wall clock that can jump."""
