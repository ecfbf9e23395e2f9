"""Text files in blocks of whole lines, in bounded memory; compressed files are read through."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from headrace.features.errors import DataError

BLOCK_BYTES = 4 << 20
LONGEST_LINE = 16 << 20
"""A longer line is no event: it is cut short, and becomes a dead letter."""

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"
_CUT_LINE = b" ... (cut off: a line of more than 16 MiB)"
_HEAD_KEPT = 64 << 10


class TextFile:
    """The bytes of one text file, without a byte order mark, unpacked where the name ends in .gz or .zst.

    Use in a `with` statement.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._raw: BinaryIO = path.open("rb")
        except OSError as error:
            raise DataError(
                f"File '{path}' cannot be opened: {error.strerror}. Give it back, or leave it out."
            ) from error
        codec = _CODECS.get(path.suffix.lower())
        self._stream = pa.CompressedInputStream(self._raw, codec) if codec else self._raw
        self._begun = False

    def __enter__(self) -> "TextFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._raw.close()

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """Up to `size` bytes; none at the end.

        Raises:
            DataError: the file cannot be read or unpacked any further.
        """
        try:
            data: bytes = self._stream.read(size)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"File '{self._path}' cannot be read beyond byte {self.position}: {error}. What came before it has "
                "been read; mend the file and run again."
            ) from error
        if not self._begun:
            self._begun = True
            data = data.removeprefix(_BOM)
        return data

    @property
    def position(self) -> int:
        """Bytes read of the file as it lies on the disk."""
        return self._raw.tell()


def line_blocks(file: TextFile) -> Iterator[list[bytes]]:
    """The lines of a file, some MiB at a time, without their ends; lines of white space alone are left out."""
    rest: list[bytes] = []  # the parts of a line that has not ended
    size = 0
    while data := file.read():
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            if size <= LONGEST_LINE:
                rest.append(data)
            size += len(data)
            continue
        first, *others = head.split(b"\n")
        lines = [_ended([*rest, first], size + len(first)), *others]
        yield [stripped for line in lines if (stripped := line.strip())]
        rest, size = [tail], len(tail)
    if last := _ended(rest, size).strip():
        yield [last]


def _ended(parts: list[bytes], size: int) -> bytes:
    return b"".join(parts) if size <= LONGEST_LINE else b"".join(parts)[:_HEAD_KEPT] + _CUT_LINE


def record_blocks(file: TextFile) -> Iterator[bytes]:
    """The bytes of a CSV file, some MiB at a time, cut where a line ends outside quotes.

    A quote that nothing closes would keep every later line inside it: after `LONGEST_LINE` bytes the cut is made at
    the end of any line.
    """
    rest = b""
    while data := file.read():
        rest += data
        cut = _last_end_outside_quotes(rest)
        if cut < 0 and len(rest) > LONGEST_LINE:
            cut = rest.rfind(b"\n")
            cut = len(rest) - 1 if cut < 0 else cut
        if cut >= 0:
            yield rest[: cut + 1]
            rest = rest[cut + 1 :]
    if rest:
        yield rest


def _last_end_outside_quotes(data: bytes) -> int:
    """Where the last line ends that has an even number of quotes before its end, or -1."""
    end = data.rfind(b"\n")
    odd = data.count(b'"', 0, end) % 2 if end >= 0 else 0
    while end >= 0 and odd:
        earlier = data.rfind(b"\n", 0, end)
        odd = (odd + data.count(b'"', max(earlier, 0), end)) % 2
        end = earlier
    return end
