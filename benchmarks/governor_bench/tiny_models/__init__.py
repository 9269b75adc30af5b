"""Two small Qwen3 models, a target and a draft, trained on this machine in about two minutes.

They let a real engine be measured and tested with nothing to download: the target writes text that
looks like Python, ends it, and costs more per step the more rows it has; the draft shares its
tokenizer and guesses it well enough for speculation. `python -m governor_bench.tiny_models` trains
them, or finds them in the cache, and prints where they are. `tiny_eagle_head` trains another draft
for the same target, an EAGLE head.
"""

from governor_bench.tiny_models.cache import TinyModels, tiny_models
from governor_bench.tiny_models.eagle import tiny_eagle_head
from governor_bench.tiny_models.eagle_recipe import EagleRecipe
from governor_bench.tiny_models.recipe import Recipe

__all__ = ["EagleRecipe", "Recipe", "TinyModels", "tiny_eagle_head", "tiny_models"]
