"""Speculative decoding on the reference CPU platform: NGRAM, STANDALONE and EAGLE.

Stock SGLang 0.5.17 calls compiled kernels for a few operations of speculation. Here each has a
counterpart in plain torch (`governor_kernels`), put in its place when the engine starts with
`--speculative-algorithm` on this platform, and never otherwise. docs/speculation-cpu.md says what
is replaced, and what is refused.

`workers` prepares a worker's class; `replacing` puts functions in place; `cache_ops`, `tree_ops`
and `sampling_ops` give the references SGLang's signatures; `attention` computes tree attention,
of some nodes only where `kept_nodes` says so; `self_check` ends the start if something that would
fail silently is not in place.
"""
