"""What the tiny models are made of: every number that changes their weights, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shape:
    """Sizes of one Qwen3 decoder."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_size: int


@dataclass(frozen=True)
class Recipe:
    """One training run. Two runs of one recipe on one host give identical weights."""

    target: Shape = field(default=Shape(8, 256, 768, 4, 2, 64))
    """In SGLang on one CPU thread a decode step costs about 10 ms with one row, and most of that is
    per layer and per row. Even head counts, so that two ranks can split it.
    """

    trained_layers: int = 2
    """Layers of the target that are trained. The others pass their input on unchanged: they cost a
    served step what any layer costs and cost training nothing, which then reaches better text.
    """

    draft: Shape = field(default=Shape(1, 256, 512, 4, 2, 64))
    """One layer of the same width; all of it is trained."""

    vocab_size: int = 2048
    """Tokens, the special ones included."""

    max_position_embeddings: int = 8192
    """Context in tokens that the models may be served with; trained on are only `row_tokens`."""

    functions: int = 300
    """Python functions in the corpus, spread evenly over the standard library. Few enough to be
    read several times: half-remembered text reads better than what two minutes could generalise.
    """

    function_bytes: tuple[int, int] = (80, 400)
    """Shortest and longest source of a function that is used. Short ones teach the model to end."""

    steps: int = 450
    batch_rows: int = 2
    """Sequences in one step. Few: a step's time is proportional to its tokens even so."""

    row_tokens: int = 256
    """Tokens in one sequence of a step."""

    learning_rate: float = 2e-3
    """Peak of AdamW's rate: reached after a tenth of the steps, then down a cosine to a tenth."""

    weight_decay: float = 0.1
    seed: int = 20
    threads: int = 1
    """Torch threads. Fixed, because the order of floating-point sums follows from it; one, because
    two were ten times slower where another process wanted a core.
    """
