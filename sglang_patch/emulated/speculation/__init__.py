"""Drafts on the emulated engine: ``--speculative-algorithm EMULATED``.

No draft model runs. What a draft comes to was drawn before the request runs (`luck`), by its client
(`fields`) or here. `drafts` looks it up and keeps to what a governor orders, `worker` gives SGLang
the tokens and the device the cost of each step. `algorithm` and `arguments` are how SGLang is
started with it, `kv_table` stands in for one of its kernels.
"""
