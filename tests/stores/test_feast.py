"""Feast 0.67 reads what we write, we read what it writes, and both write the same bytes."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import SLOW_IS_FINE
from tests.servers.fixtures import RedisAddress
from tests.stores.feast_repo import FeastRepo, Value, feast_message, python_type, python_value

from headrace.stores.feast_keys import FeastKeys
from headrace.stores.feast_rows import field_of
from headrace.stores.feast_values import decode_value, encode_value, read_timestamp, timestamp
from headrace.stores.layout import row_layout
from headrace.stores.murmur import murmur3_32
from headrace.stores.online import StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.redis_scripts import INSTANT
from headrace.stores.testing import AT, FULL, HIDDEN, NULLS, ByShop, EveryType, Visits, row, rows_of

KEY = {"user": "ü", "shop": -7, "token": b"\x00t"}
WHOLE_SECONDS: dict[str, Any] = {
    **FULL,
    "cities": ["", "x", "ab"],
    "seen": AT,
    "seens": [0, AT],
    "by_city": {"a": 1},  # Feast's protobuf writes the entries of a map in an order of its own
    "by_paid": {True: [AT], False: [AT, 0]},
}
TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
"""From year 1 to the end of 9999: what a protobuf Timestamp may hold."""
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300),
    "float64": st.floats(allow_nan=False),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=200),
    "timestamp": st.integers(-(10**10), 10**10).map(lambda s: s * 10**6),
}


@pytest.fixture
def repo(tmp_path: Path, redis_server: RedisAddress) -> FeastRepo:
    db = int(redis_server.url.rpartition("/")[2])
    return FeastRepo(tmp_path, redis_server.port, db, "headrace", EveryType, Visits)


def hashes(server: RedisAddress) -> dict[bytes, dict[bytes, bytes]]:
    """Every entity's hash, without what is ours alone."""
    with server.client() as client:
        keys = [key for key in client.scan_iter() if not key.startswith(b"{headrace")]
        found = {key: client.hgetall(key) for key in keys}
    return {
        key: {name: value for name, value in each.items() if not name.startswith(b"_exact:")}
        for key, each in found.items()
    }


# Bytes


@pytest.mark.parametrize("dtype", SCALARS)
@given(data=st.data())
def test_scalars_are_feasts_bytes(dtype: str, data: st.DataObject) -> None:
    value = data.draw(SCALARS[dtype])
    ours = encode_value(value, dtype)
    if value == b"":  # Feast takes empty bytes for null as it writes; what it reads as empty bytes is this
        assert python_type(Value.FromString(ours)) == b""
    else:
        assert ours == feast_message(value, dtype).SerializeToString()
    assert decode_value(ours, dtype) == value


@pytest.mark.parametrize("dtype", SCALARS)
@given(data=st.data())
def test_lists_are_feasts_bytes(dtype: str, data: st.DataObject) -> None:
    # For Feast's type inference a list of one-element or more; an empty one is tested apart.
    value = data.draw(st.lists(SCALARS[dtype], min_size=1, max_size=4))
    ours = encode_value(value, f"list<{dtype}>")
    assert ours == feast_message(value, f"list<{dtype}>").SerializeToString()
    assert decode_value(ours, f"list<{dtype}>") == value


@pytest.mark.parametrize("dtype", SCALARS)
def test_empty_lists_and_nulls_are_feasts_bytes(dtype: str) -> None:
    assert encode_value([], f"list<{dtype}>") == feast_message([], f"list<{dtype}>").SerializeToString()
    assert encode_value(None, dtype) == feast_message(None, dtype).SerializeToString() == b""
    assert decode_value(encode_value([], f"list<{dtype}>"), f"list<{dtype}>") == []


@pytest.mark.parametrize("key", SCALARS)
@given(data=st.data())
def test_maps_are_what_feast_reads(key: str, data: st.DataObject) -> None:
    """Feast leaves the order of a map of texts to protobuf, so the message is compared; the other maps are lists."""
    value = data.draw(
        st.sampled_from(["int64", "float64", "string", "bool", "timestamp", "list<int64>", "list<string>"])
    )
    of = SCALARS[value] if value in SCALARS else st.lists(SCALARS[value[5:-1]], min_size=1, max_size=3)
    mapping = data.draw(st.dictionaries(SCALARS[key], st.none() | of, max_size=3))
    dtype = f"map<{key},{value}>"
    ours = encode_value(mapping, dtype)
    theirs = feast_message(mapping, dtype)
    assert Value.FromString(ours) == theirs
    if key != "string":
        assert ours == theirs.SerializeToString()
    assert decode_value(ours, dtype) == mapping
    assert list(decode_value(ours, dtype)) == list(mapping)
    assert decode_value(theirs.SerializeToString(), dtype) == mapping


@given(us=TIMES)
def test_instants_are_protobufs_bytes(us: int) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    made = Timestamp()
    made.FromDatetime(python_value(us, "timestamp"))
    assert timestamp(us) == made.SerializeToString()
    assert read_timestamp(timestamp(us)) == us


@given(user=SCALARS["string"], shop=SCALARS["int64"], token=st.binary(min_size=1))
def test_keys_are_feasts_bytes(user: str, shop: int, token: bytes) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

    layout = row_layout(EveryType)
    values = dict(zip(layout.key_names, (user, shop, token), strict=True))
    messages = [feast_message(values[name], dtype) for name, dtype in layout.keys]
    theirs = serialize_entity_key(EntityKey(join_keys=list(layout.key_names), entity_values=messages), 3)
    keys = FeastKeys(layout.keys, "rides")
    ours = keys.encode((user, shop, token))
    assert ours == theirs + b"rides"
    assert keys.decode(ours) == (user, shop, token)
    assert FeastKeys(layout.keys, "ides").decode(ours) is None


@given(st.binary(max_size=40))
def test_fields_are_named_by_murmur3(data: bytes) -> None:
    import mmh3

    assert murmur3_32(data) == mmh3.hash(data, signed=False)


# Whole rows


@pytest.mark.parametrize("at", [AT, AT + 1, AT + 999_999])
def test_a_row_is_the_hash_that_feast_writes(repo: FeastRepo, redis_server: RedisAddress, at: int) -> None:
    written = [(KEY, WHOLE_SECONDS, at), ({"user": "", "shop": 0, "token": b"t"}, NULLS, at - 1)]
    repo.write(EveryType, [(key, {**values, "newest_event": us - 5}, us) for key, values, us in written])
    theirs = hashes(redis_server)
    with redis_server.client() as client:
        client.flushdb()
    with RedisStore(redis_server.url) as store:
        store.write(EveryType, rows_of(EveryType, [(key, StoredRow(v, us, us - 5)) for key, v, us in written]))
        assert hashes(redis_server) == theirs
        assert len(theirs) == 2
        assert {len(each) for each in theirs.values()} == {len(FULL) + 2}


def test_feast_reads_what_we_write(repo: FeastRepo, redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as store:
        store.write(EveryType, rows_of(EveryType, [(KEY, StoredRow(FULL, AT + 1, AT))]))
        features = [name for name in FULL if name != HIDDEN]
        found = repo.read(EveryType, [KEY, {**KEY, "shop": 99}], [*features, "newest_event"])
    assert found["newest_event"] == [AT, None]
    dtypes = dict(row_layout(EveryType).features)
    for name in features:
        if name not in ("cities", "seen", "seens", "by_paid"):  # what Feast's types do not say; see below
            assert found[name] == [python_value(FULL[name], dtypes[name]), None], name
    assert found["cities"][0] == ["", "", "ab"]
    assert found["seen"][0] == python_value(AT, "timestamp")
    assert found["seens"][0] == [python_value(-1_000_000, "timestamp"), python_value(AT, "timestamp")]
    assert found["by_paid"][0] == {True: [python_value(AT, "timestamp"), None], False: []}


def test_we_read_what_feast_writes(repo: FeastRepo, redis_server: RedisAddress) -> None:
    values = {**WHOLE_SECONDS, "by_city": {"a": 1, "b": 2}}
    repo.write(EveryType, [(KEY, {**values, "newest_event": AT - 9}, AT + 7)])
    with RedisStore(redis_server.url) as store:
        assert store.read(EveryType, [KEY]) == [StoredRow(values, AT + 7, AT - 9)]
        repo.write(Visits, [({"user": "a"}, {"visits": 3, "total": 0.5}, AT)])
        assert store.read(Visits, [{"user": "a"}, {"user": "b"}]) == [row(0, 3, 0.5), None]
        assert list(store.scan(Visits)) == [({"user": "a"}, row(0, 3, 0.5))]


def test_the_later_of_feast_and_us_stays(repo: FeastRepo, redis_server: RedisAddress) -> None:
    key = {"user": "a"}
    with RedisStore(redis_server.url) as store:
        store.write(Visits, rows_of(Visits, [(key, row(10))]))
        repo.write(Visits, [(key, {"visits": 9, "total": 9.0, "newest_event": AT}, AT + 9)])
        assert store.read(Visits, [key]) == [row(10)]
        repo.write(Visits, [(key, {"visits": 11, "total": 1.0, "newest_event": AT + 11}, AT + 11)])
        assert store.read(Visits, [key]) == [row(11, 11)]
        assert store.write(Visits, rows_of(Visits, [(key, row(10))])) == 0
        assert store.write(Visits, rows_of(Visits, [(key, row(12))])) == 1
        assert repo.read(Visits, [key], ["visits"])["visits"] == [1]


def test_what_we_noted_of_a_row_does_not_outlive_it(repo: FeastRepo, redis_server: RedisAddress) -> None:
    """Nulls in lists and fractions of seconds stand in a field that Feast does not know, so it cannot renew it."""
    later = {**WHOLE_SECONDS, "newest_event": AT}
    with RedisStore(redis_server.url) as store:
        store.write(EveryType, rows_of(EveryType, [(KEY, StoredRow(FULL, AT, AT))]))
        assert store.read(EveryType, [KEY]) == [StoredRow(FULL, AT, AT)]
        repo.write(EveryType, [(KEY, later, AT + 1)])
        assert store.read(EveryType, [KEY]) == [StoredRow(WHOLE_SECONDS, AT + 1, AT)]


def test_views_of_one_entity_share_a_hash_in_feast_and_here(redis_server: RedisAddress) -> None:
    with RedisStore(redis_server.url) as store:
        store.write(Visits, rows_of(Visits, [({"user": "a"}, row(1))]))
        store.write(ByShop, rows_of(ByShop, [({"shop": 1}, StoredRow({"visits": 1}, AT, AT))]))
        assert len(hashes(redis_server)) == 2


def test_a_plain_client_reads_a_row(redis_server: RedisAddress) -> None:
    """The example of docs/online-stores.md, by hand: no Feast, no Headrace."""
    with RedisStore(redis_server.url, project="rides") as store:
        store.write(Visits, rows_of(Visits, [({"user": "ann"}, row(1_500_000, visits=300, total=2.5))]))
    key = struct.pack("<I", 1)  # one join key
    key += struct.pack("<II", 2, 4) + b"user"  # its name, of type string
    key += struct.pack("<II", 2, 3) + b"ann"  # its value, of type string
    key += b"rides"
    with redis_server.client() as client:
        total = client.hget(key, field_of("visits", "total"))
        assert total is not None
        assert total[:1] == b"\x29"
        assert struct.unpack("<d", total[1:]) == (2.5,)
        assert client.hget(key, field_of("visits", "visits")) == b"\x20\xac\x02"
        assert client.hget(key, "_ts:visits") == timestamp(AT + 1_500_000)


@given(instants=st.lists(TIMES | st.integers(AT - 10**9, AT + 10**9), min_size=1, max_size=20))
@settings(suppress_health_check=[*SLOW_IS_FINE, HealthCheck.function_scoped_fixture])
def test_the_script_reads_instants_as_protobuf_writes_them(redis_server: RedisAddress, instants: list[int]) -> None:
    script = (
        INSTANT
        + """
    local found = {}
    for i = 1, #ARGV do
      local seconds, nanos = instant(ARGV[i])
      found[i] = string.format('%.0f %.0f', seconds, nanos)
    end
    return found
    """
    )
    with redis_server.client() as client:
        told = client.eval(script, 0, *map(timestamp, instants))
    assert told == [b"%d %d" % (us // 10**6, us % 10**6 * 1000) for us in instants]
