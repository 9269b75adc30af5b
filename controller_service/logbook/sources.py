"""Where logs are: folders, files and fsspec URLs of either, as a list of files."""

from __future__ import annotations

from collections.abc import Sequence

from controller_service.logbook.names import SUFFIX, covered
from controller_service.logbook.schema import STEPS, TABLES

MAX_FILES = 100_000


class BadSource(ValueError):
    """A source of logs that cannot be used at all; names it and the remedy."""


def list_files(sources: Sequence[str], table: str = STEPS) -> list[str]:
    """Paths or URLs of the files of ``table`` in ``sources``, in order, each once.

    Raises:
        BadSource: nothing there, it cannot be read, or it holds too many files.
    """
    found: dict[str, None] = {}
    for source in sources:
        found.update(dict.fromkeys(_list(source, table)))
    return list(found)


def _list(source: str, table: str) -> list[str]:
    from fsspec.core import url_to_fs  # noqa: PLC0415

    try:
        fs, path = url_to_fs(source)
        if fs.isfile(path):
            return [source]
        if not fs.isdir(path):
            raise BadSource(
                f"{source}: no such file or folder; name the controller's log_dir, a file in it, "
                "or the URL of a copy"
            )
        below = [found for found in fs.find(path) if _is_of(found, path, table)]
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, BadSource):
            raise
        raise BadSource(f"{source}: cannot be read: {error}") from error
    if len(below) > MAX_FILES:
        raise BadSource(f"{source}: more than {MAX_FILES} files; name a folder in it")
    twice = covered(below)
    local = "://" not in source and "::" not in source
    kept = sorted(found for found in below if found not in twice)
    return kept if local else [str(fs.unstrip_protocol(found)) for found in kept]


def _is_of(found: str, root: str, table: str) -> bool:
    if not found.endswith(SUFFIX):  # one that is not complete ends otherwise
        return False
    folders = found.split("/")[:-1]
    other = next(name for name in TABLES if name != table)
    # Below a folder of one engine or table everything is meant; below the log's root, its own half.
    below = found[len(root.rstrip("/")) :].split("/")[:-1]
    return other not in below and not (other in folders and table not in folders)
