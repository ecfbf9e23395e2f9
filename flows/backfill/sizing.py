"""What can be told of a source before it is read: how large it is, and whether it is still the same."""

import secrets

from headrace.features.sources import FileSource, Source
from headrace.flows.files import paths_of

LEAST, MOST = 16, 512
"""Buckets of a small and of the largest source; each keeps a file open while the source is read."""
PARQUET_BYTES, TEXT_BYTES = 1 << 20, 8 << 20
"""Of the source's files per bucket: some fifty to a hundred thousand events."""


def looks_of(source: Source) -> object:
    """What changes when the source does. Of what lies in memory nobody can tell whether it is the same, so it is
    another each time."""
    if not isinstance(source, FileSource):
        return secrets.token_hex(8)
    return [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in paths_of(source)]


def buckets_of(source: Source) -> int:
    """So many that those which are in memory at a time, one for each thread, are small."""
    if not isinstance(source, FileSource):
        return LEAST
    paths = [path for _, path in paths_of(source)]
    each = PARQUET_BYTES if all(path.suffix == ".parquet" for path in paths) else TEXT_BYTES
    return min(MOST, max(LEAST, sum(path.stat().st_size for path in paths) // each))
