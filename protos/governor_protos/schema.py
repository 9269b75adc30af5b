"""JSON Schema of the contract, for peers written in other languages.

Run ``python -m governor_protos.schema`` to print it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import msgspec

from governor_protos.messages import ToController, ToEngine
from governor_protos.version import OURS


def json_schema() -> dict[str, Any]:
    """The contract as JSON Schema 2020-12; arrays are positional, the first item is the tag."""
    (to_controller, to_engine), definitions = msgspec.json.schema_components(
        [ToController, ToEngine], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Governor wire contract {OURS}",
        "description": "msgpack encoding; packed columns are little-endian binary",
        "$defs": {**definitions, "ToController": to_controller, "ToEngine": to_engine},
        "anyOf": [{"$ref": "#/$defs/ToController"}, {"$ref": "#/$defs/ToEngine"}],
    }


def main() -> None:
    """Print the schema; a reader that has seen enough, such as ``head``, may leave early."""
    try:
        print(json.dumps(json_schema(), indent=2, sort_keys=True), flush=True)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, or Python would complain at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
