"""Out-of-tree SGLang platforms: devices that stock SGLang can be started on by name.

`reference_cpu` is the only one: any x86-64 CPU, without compiled kernels, for development and CI.
"""
