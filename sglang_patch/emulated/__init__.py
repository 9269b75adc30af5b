"""The emulated engine: stock SGLang on the CPU whose steps last as long as a named GPU's would.

Chosen by ``GOVERNOR_EMULATED_PROFILE``; inert otherwise, and independent of a controller.
"""
