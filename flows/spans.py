"""Pieces of a block of bytes as an Arrow column."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.features.errors import DataError
from headrace.flows.compiled import kernel
from headrace.flows.machine import copy_word


@kernel
def gather(block, begins, sizes, offsets, data):  # type: ignore[no-untyped-def]
    """Copy pieces of a block behind each other. There are eight bytes more than are needed in either."""
    at = np.int64(0)
    offsets[0] = 0
    for i in range(begins.shape[0]):
        begin = begins[i]
        size = np.int64(sizes[i])
        k = np.int64(0)
        while k < size:
            copy_word(block, begin + k, data, at + k)
            k += 8
        at += size
        offsets[i + 1] = at


def spans(
    block: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int32],
    missing: npt.NDArray[np.bool_] | None,
) -> pa.Array:
    """(n,) binary: the bytes of `block` from each of `begins` on, so many as `sizes` (n,) int32 says.

    block: has eight bytes more, which are in no piece. missing: (n,) which values are null, if any is; their places and
    sizes are not looked at.

    Raises:
        DataError: the values have 2 GiB together.
    """
    if missing is not None:
        sizes = np.where(missing, 0, sizes)
    size = int(sizes.sum())
    if size >= 1 << 31:
        raise DataError(
            f"{len(begins)} values of one batch have {size:,} bytes together, and may have 2 GiB: read less."
        )
    offsets = np.empty(len(begins) + 1, dtype=np.int32)
    data = np.empty(size + 8, dtype=np.uint8)
    gather(block, begins, sizes, offsets, data)
    null = None if missing is None else pa.array(~missing).buffers()[1]
    buffers = [null, pa.py_buffer(offsets), pa.py_buffer(data[:size])]
    return pa.Array.from_buffers(pa.binary(), len(begins), buffers)
