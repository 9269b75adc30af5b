"""The wire contract between an SGLang engine and a Governor controller, and what both ask of the
files of its secrets."""

from governor_protos.codec import BadFrame, decode_to_controller, decode_to_engine, encode
from governor_protos.version import OURS, PROTOCOL_MAJOR, PROTOCOL_MINOR

__all__ = [
    "OURS",
    "PROTOCOL_MAJOR",
    "PROTOCOL_MINOR",
    "BadFrame",
    "decode_to_controller",
    "decode_to_engine",
    "encode",
]
