"""Train an EAGLE head (Li et al., arXiv 2401.15077) on what its target computes on the corpus.

The head reads the target's last state at a token together with the embedding of the token that
follows, and guesses the target's state at that one; embedding and output layer are the target's.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaModel

from governor_bench.tiny_models.corpus import functions
from governor_bench.tiny_models.eagle_recipe import EagleRecipe
from governor_bench.tiny_models.tokenizer import as_documents
from governor_bench.tiny_models.train import (
    GRADIENT_NORM,
    progress_bar,
    rate_fraction,
    reproducible,
    rows_of,
)

ARCHITECTURE = "LlamaForCausalLMEagle"
"""SGLang's class: one Llama layer without its first norm, after a projection of both inputs."""


class _Head(torch.nn.Module):  # type: ignore[misc]
    """The head, as SGLang computes it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(2 * config.hidden_size, config.hidden_size)
        body = LlamaModel(config)
        body.layers[0].input_layernorm = torch.nn.Identity()
        body.norm = torch.nn.Identity()
        del body.embed_tokens
        self.body = body

    def forward(self, embeddings: Any, states: Any) -> Any:
        """Both (rows, tokens, hidden); so is the result."""
        inputs = self.fc(torch.cat((embeddings, states), dim=-1))
        return self.body(inputs_embeds=inputs, use_cache=False).last_hidden_state


def train_eagle_head(
    recipe: EagleRecipe, target: Path, head: Path, *, progress: bool = True
) -> None:
    """Train a head for the model in `target` and write it as a model folder of SGLang's.

    Args:
        recipe: what to train.
        target: model folder that `recipe.base` was trained into.
        head: folder for the head; must not hold a model yet.
        progress: draw a progress bar on standard error.

    Raises:
        RuntimeError: the corpus is too small for the recipe.
    """
    tokenizer = AutoTokenizer.from_pretrained(target)
    encoded = tokenizer(list(as_documents(functions(recipe.base))))["input_ids"]
    ids = torch.tensor([token for document in encoded for token in document])
    plan = replace(recipe.base, steps=recipe.steps, batch_rows=recipe.batch_rows)
    with reproducible(plan):
        taught: Any = AutoModelForCausalLM.from_pretrained(target)
        # The layers on top change nothing and would take most of the time.
        taught.model.layers = taught.model.layers[: recipe.base.trained_layers]
        config = _config(recipe, taught.config)
        trained = _Head(config)
        _fit(trained, taught, rows_of(ids, plan), recipe, progress=progress)
    head.mkdir(parents=True)
    config.save_pretrained(head)
    tokenizer.save_pretrained(head)
    weights = {
        name.removeprefix("body."): weight.detach().contiguous()
        for name, weight in trained.state_dict().items()
    }
    save_file(weights, head / "model.safetensors", metadata={"format": "pt"})


def _fit(head: _Head, target: Any, batches: Any, recipe: EagleRecipe, *, progress: bool) -> None:
    """Run AdamW over `batches` (steps x batch rows x row tokens, token ids)."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_fraction(step, recipe.steps)
    )
    with progress_bar(progress) as bar:
        task = bar.add_task("Training the EAGLE head", total=recipe.steps, loss=math.nan)
        for batch in batches:
            with torch.no_grad():
                states = target.model(input_ids=batch).last_hidden_state
                embeddings = target.model.embed_tokens(batch)
            loss = _loss(head, target.lm_head.weight.detach(), states, embeddings, recipe)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            bar.update(task, advance=1, loss=loss.item())


def _loss(head: _Head, output: Any, states: Any, embeddings: Any, recipe: EagleRecipe) -> Any:
    """Mean over the unrolled passes; `states` and `embeddings` are (rows, tokens, hidden)."""
    wanted = states[:, 1:]
    chances = (wanted @ output.T).softmax(-1).flatten(0, 1)
    guessed = states[:, :-1]
    total = torch.zeros(())
    for turn in range(recipe.unrolled):
        # A pass reads, for the target's state at each token, what the pass before guessed for it.
        guessed = head(embeddings[:, 1:], guessed)
        kept = slice(turn, None)
        tokens = torch.nn.functional.cross_entropy(
            (guessed[:, kept] @ output.T).flatten(0, 1),
            chances.view(*wanted.shape[:2], -1)[:, kept].flatten(0, 1),
        )
        distance = torch.nn.functional.smooth_l1_loss(guessed[:, kept], wanted[:, kept])
        total = total + tokens + recipe.feature_weight * distance
        guessed = torch.cat((states[:, :1], guessed[:, :-1]), dim=1)
    return total / recipe.unrolled


def _config(recipe: EagleRecipe, target: Any) -> LlamaConfig:
    return LlamaConfig(
        architectures=[ARCHITECTURE],
        vocab_size=target.vocab_size,
        hidden_size=target.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=1,
        num_attention_heads=target.num_attention_heads,
        num_key_value_heads=target.num_key_value_heads,
        head_dim=target.head_dim,
        max_position_embeddings=target.max_position_embeddings,
        rms_norm_eps=target.rms_norm_eps,
        tie_word_embeddings=False,
        bos_token_id=target.bos_token_id,
        eos_token_id=target.eos_token_id,
        pad_token_id=target.pad_token_id,
        dtype="float32",
    )
