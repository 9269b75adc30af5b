"""Byte-level BPE with a chat template: what both models read and write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
"""Special tokens, with ids 0, 1 and 2. The end of a turn is the models' end of sequence."""

PAD_ID, TURN_START_ID, TURN_END_ID = 0, 1, 2

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(
    texts: Sequence[str], vocab_size: int, context_tokens: int
) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE of `vocab_size` tokens from `texts`; any byte stays encodable."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # A newline is a token of its own: merged with the indentation that follows it in training, it
    # would be a token that the models never saw at the end of a prompt, and they would stop there.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=context_tokens,
        clean_up_tokenization_spaces=False,
    )


def as_documents(texts: Sequence[str]) -> Iterator[str]:
    """Turn functions into training documents, each with its end of sequence.

    Every other function is a chat: its first line asks and the rest answers. So a completion as
    well as a chat prompt looks like something the models were trained on, and both end.
    """
    for index, text in enumerate(texts):
        head, _, body = text.partition("\n")
        if index % 2 and body:
            yield (f"{TURN_START}user\n{head}{TURN_END}\n{TURN_START}assistant\n{body}{TURN_END}\n")
        else:
            yield f"{text}{TURN_END}\n"
