"""What differs between the checked versions of SGLang: one file a difference.

| file | up to 0.5.17 | in 0.5.23 |
|---|---|---|
| ``ranks.py`` | ``Scheduler.ps`` | ``runtime_context.get_parallel()`` |
| ``kv_record.py`` | lengths on the request, ``extend_range`` | ``Req.kv``, ``Req.extend_end`` |
| ``prefix_cache.py`` | ``RadixCache``, ``ChunkCache`` | ``UnifiedRadixCache`` |
| ``upkeep.py`` | caches are looked after with every prefill | once an iteration |
| ``last_steps.py`` | a row runs once more after its end | a row whose end is under way is left out |

Each file has one class for either way and a function that picks one, once in a process, by what
SGLang has; nowhere else is a version asked for. SGLang is imported only there.
"""  # noqa: E501
