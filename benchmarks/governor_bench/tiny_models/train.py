"""Train the target on the corpus and, in the same steps, the draft on the target's predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import Qwen3Config, Qwen3ForCausalLM

from governor_bench.tiny_models.corpus import functions
from governor_bench.tiny_models.recipe import Recipe, Shape
from governor_bench.tiny_models.tokenizer import (
    PAD_ID,
    TURN_END_ID,
    as_documents,
    train_tokenizer,
)

WARM_UP_FRACTION = 0.1
FINAL_RATE_FRACTION = 0.1
GRADIENT_NORM = 1.0


def train(recipe: Recipe, target: Path, draft: Path, *, progress: bool = True) -> None:
    """Train both models and write each as a Hugging Face model folder with the tokenizer.

    Args:
        recipe: what to train.
        target: folder for the target; must not hold a model yet.
        draft: folder for the draft.
        progress: draw a progress bar on standard error.

    Raises:
        ValueError: the recipe trains more layers than its target has.
        RuntimeError: the corpus is too small for the recipe.
    """
    if not 1 <= recipe.trained_layers <= recipe.target.layers:
        raise ValueError(
            f"trained_layers must be between 1 and the target's {recipe.target.layers} layers, "
            f"not {recipe.trained_layers}."
        )
    texts = functions(recipe)
    tokenizer = train_tokenizer(texts, recipe.vocab_size, recipe.max_position_embeddings)
    encoded = tokenizer(list(as_documents(texts)))["input_ids"]
    ids = [token for document in encoded for token in document]
    with reproducible(recipe):
        rows = rows_of(torch.tensor(ids), recipe)
        shallow = replace(recipe.target, layers=recipe.trained_layers)
        taught, drafter = _model(shallow, recipe), _model(recipe.draft, recipe)
        _fit(taught, drafter, rows, recipe, progress=progress)
        deep = _deepened(taught, recipe)
    for folder, model in ((target, deep), (draft, drafter)):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _fit(target: Any, draft: Any, rows: Any, recipe: Recipe, *, progress: bool) -> None:
    """Run AdamW over `rows` (steps x batch rows x row tokens, token ids)."""
    parameters = [*target.parameters(), *draft.parameters()]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_fraction(step, recipe.steps)
    )
    with progress_bar(progress) as bar:
        task = bar.add_task("Training the tiny models", total=recipe.steps, loss=math.nan)
        for batch in rows:
            logits = target(input_ids=batch).logits[:, :-1].flatten(0, 1)
            guesses = draft(input_ids=batch).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten())
            # A draft is accepted where it says what the target would, so the target teaches it.
            taught = torch.nn.functional.cross_entropy(guesses, logits.detach().softmax(-1))
            optimizer.zero_grad()
            (loss + taught).backward()
            # Each on its own: the draft's gradient is no measure of the target's.
            torch.nn.utils.clip_grad_norm_(target.parameters(), GRADIENT_NORM)
            torch.nn.utils.clip_grad_norm_(draft.parameters(), GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            bar.update(task, advance=1, loss=loss.item())


def rows_of(ids: Any, recipe: Recipe) -> Any:
    """Cut the token stream (one dimension) into steps x batch rows x row tokens, shuffled anew
    each time the corpus has been read through.
    """
    whole = ids[: len(ids) // recipe.row_tokens * recipe.row_tokens].view(-1, recipe.row_tokens)
    needed = recipe.steps * recipe.batch_rows
    if not len(whole):
        raise RuntimeError(
            f"the corpus has {len(ids)} tokens, less than one row of {recipe.row_tokens}: raise "
            "the recipe's `functions`."
        )
    epochs = math.ceil(needed / len(whole))
    order = torch.cat([torch.randperm(len(whole)) for _ in range(epochs)])[:needed]
    return whole[order].view(recipe.steps, recipe.batch_rows, recipe.row_tokens)


def _model(shape: Shape, recipe: Recipe) -> Any:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=recipe.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_size,
            max_position_embeddings=recipe.max_position_embeddings,
            tie_word_embeddings=True,
            use_cache=False,
            bos_token_id=PAD_ID,
            pad_token_id=PAD_ID,
            eos_token_id=TURN_END_ID,
        )
    ).to(torch.float32)


def _deepened(shallow: Any, recipe: Recipe) -> Any:
    """Put layers that change nothing on top of `shallow`, up to the depth of the target.

    A decoder layer adds the outputs of its attention and of its MLP to its input, so it passes the
    input on where both output projections are zero; all its operations run all the same.
    """
    deep = _model(recipe.target, recipe)
    deep.load_state_dict(shallow.state_dict(), strict=False)
    for layer in deep.model.layers[recipe.trained_layers :]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return deep


def rate_fraction(step: int, steps: int) -> float:
    """Learning rate of a step as a fraction of its peak: linear warm-up, then a cosine."""
    warm_up = max(1, int(steps * WARM_UP_FRACTION))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return FINAL_RATE_FRACTION + (1 - FINAL_RATE_FRACTION) * cosine


@contextmanager
def reproducible(recipe: Recipe) -> Iterator[None]:
    """Fix the seed and the thread count, and give the caller's back afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def progress_bar(enabled: bool) -> Progress:
    """Progress with a loss, on standard error, or nothing."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.2f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not enabled,
    )
