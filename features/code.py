"""What a Python function does, as a short stable text: so that a changed function changes the fingerprint."""

from __future__ import annotations

import hashlib
from types import CodeType
from typing import Any

_SIMPLE = (bool, int, float, str, bytes, type(None))


def code_key(function: Any) -> str:
    """Name and digest of a function's compiled code, its defaults and the plain values it closes over.

    The same in every process of one Python version; another Python version compiles to other code and so gives another
    key. Comments, formatting and the file's place do not count. A function without Python code (a NumPy function) is
    known by its full name.

    >>> code_key(lambda x: x + 1) == code_key(lambda x: x + 1), code_key(lambda x: x + 1) == code_key(lambda x: x + 2)
    (True, False)
    """
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or type(function).__name__
    if code is None:
        return f"{getattr(function, '__module__', None) or 'numpy'}.{name}"
    values = [_value(each) for each in (*(function.__defaults__ or ()), *_closed_over(function))]
    text = repr((_code(code), values))
    return f"{name.rpartition('<locals>.')[2]}:{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def _closed_over(function: Any) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            found.append(None)
    return found


def _code(code: CodeType) -> tuple[Any, ...]:
    constants = tuple(_value(each) for each in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _value(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, (tuple, list)):
        return tuple(_value(each) for each in value)
    if isinstance(value, frozenset):
        return tuple(sorted(map(repr, value)))
    if isinstance(value, _SIMPLE):
        return repr(value)
    # A function that is closed over counts by its code alone: it may close over the one that closes over it.
    return _code(value.__code__) if hasattr(value, "__code__") else type(value).__qualname__
