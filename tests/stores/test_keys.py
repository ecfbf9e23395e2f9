"""Entity keys: one key has one encoding, two keys have two, and a value of another type is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.errors import DataError
from headrace.stores.keys import decode_key, encode_key, key_values

VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=4), st.binary(max_size=4))
KEYS = st.lists(VALUES, min_size=1, max_size=3).map(tuple)


@given(KEYS, KEYS)
def test_bytes_are_equal_exactly_when_keys_are(a: tuple[object, ...], b: tuple[object, ...]) -> None:
    assert decode_key(encode_key(a)) == a
    assert (encode_key(a) == encode_key(b)) == (a == b)


def test_numbers_of_numpy_are_numbers_and_truth_is_not() -> None:
    assert key_values("v", (("a", "int64"),), {"a": np.int32(7)}) == (7,)
    assert type(key_values("v", (("a", "string"),), {"a": np.str_("x")})[0]) is str
    for value in (True, np.True_, 1.0, np.float64(1), None, b"1"):
        with pytest.raises(DataError, match="key 'a' is"):
            key_values("v", (("a", "int64"),), {"a": value})
    with pytest.raises(DataError, match="does not fit 64 bits"):
        key_values("v", (("a", "int64"),), {"a": 2**63})
