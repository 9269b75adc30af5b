"""Tensor operations of speculative decoding, in plain torch: the reference of the device kernels.

One operation a file; none imports SGLang. The reference CPU platform runs on them
(`sglang_patch/platforms/speculation/`), and a device kernel is right where it agrees with them.

Terms, the same everywhere: a *row* is one request of the batch. A row's draft is a *tree* of
`nodes` tokens; node 0 is the root, the token that the target chose last, and a chain is the tree
in which every node has one child. `-1` stands for "none". Nodes are numbered so that a parent
comes before its children.
"""
