"""`python -m governor_bench.tiny_models`: train the tiny models, or find them, and say where."""

from __future__ import annotations

from governor_bench.tiny_models.cache import tiny_models


def main() -> None:
    """Print one `name path` line a model."""
    models = tiny_models()
    print(f"target {models.target}")
    print(f"draft {models.draft}")


if __name__ == "__main__":
    main()
