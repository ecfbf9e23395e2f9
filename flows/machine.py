"""Single instructions that Numba has no words for, as pieces of kernels.

Reading an array in Numba looks for a negative index each time; `byte_at` does not, which makes reading text byte by
byte a third faster. Nothing looks at the array's end either: who reads knows that there is more, such as a byte 0 that
ends every loop, and eight bytes behind it.

With `NUMBA_DISABLE_JIT=1` each is a function of Python that does the same.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

_BYTE, _WORD, _TWO_WORDS = ir.IntType(8), ir.IntType(64), ir.IntType(128)


def _place(context: Any, builder: Any, kind: Any, place: Any, width: Any) -> Any:
    array, at = place
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), width.as_pointer())


def _byte_at(_typing: Any, block: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.load(_place(context, builder, signature.args[0], args, _BYTE), align=1)
        return builder.zext(found, _WORD)

    return types.int64(block, types.int64), code


def _copy_word(_typing: Any, block: Any, at: Any, data: Any, to: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.load(_place(context, builder, signature.args[0], args[:2], _WORD), align=1)
        builder.store(found, _place(context, builder, signature.args[2], args[2:], _WORD), align=1)
        return context.get_dummy_value()

    return types.void(block, types.int64, data, types.int64), code


def _product(_typing: Any, left: Any, right: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        both = builder.mul(*[builder.zext(each, _TWO_WORDS) for each in args])
        high = builder.trunc(builder.lshr(both, ir.Constant(_TWO_WORDS, 64)), _WORD)
        return context.make_tuple(builder, signature.return_type, (high, builder.trunc(both, _WORD)))

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), code


def _leading_zeros(_typing: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), code


if config.DISABLE_JIT:

    def byte_at(block, at):  # type: ignore[no-untyped-def]
        return int(block[at])

    def copy_word(block, at, data, to):  # type: ignore[no-untyped-def]
        data[to : to + 8] = block[at : at + 8]

    def product(left, right):  # type: ignore[no-untyped-def]
        high, low = divmod(int(left) * int(right), 1 << 64)
        return np.uint64(high), np.uint64(low)

    def leading_zeros(value):  # type: ignore[no-untyped-def]
        return 64 - int(value).bit_length()

else:
    byte_at = intrinsic(_byte_at)
    """byte_at(block, at): the byte as int64."""
    copy_word = intrinsic(_copy_word)
    """copy_word(block, at, data, to): copies eight bytes."""
    product = intrinsic(_product)
    """product(left, right): of two uint64, the upper and the lower half."""
    leading_zeros = intrinsic(_leading_zeros)
    """leading_zeros(value): how many bits of an int64 are 0 before its first 1."""
