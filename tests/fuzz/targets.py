"""What is fuzzed: one function for each reader of something from outside.

Each takes any bytes, and raises only if a promise is broken: whatever comes in is a valid value,
or the documented error. A finding becomes a file in ``corpus/<target>/``.
"""

from __future__ import annotations

from collections.abc import Callable

import file_targets as files
import http_targets
import settings_targets as written
import wire_targets as wire

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        wire.to_controller,
        wire.to_engine,
        wire.controller,
        wire.link,
        written.request_fields,
        written.request_headers,
        written.controller_settings,
        written.engine_settings,
        written.emulation_settings,
        written.policies,
        written.key_files,
        http_targets.http,
        files.manifest,
        files.model_arrays,
        files.boosted_model,
        files.arrays,
        files.samples,
        files.log_file,
        files.profile,
        files.workload,
    )
}
