"""Where Feast's settings of a Redis online store lead, as the address that our own writers take."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType

from headrace.stores.redis_urls import RedisAddress, redis_address


def feast_redis_address(online_store: RedisOnlineStoreConfig) -> RedisAddress:
    """Where Feast's `connection_string` leads.

    Raises:
        StoreError: it names no server.
    """
    nodes, options = RedisOnlineStore._parse_connection_string(online_store.connection_string)
    hosts = ",".join(f"{node.get('host') or 'localhost'}:{node.get('port', 6379)}" for node in nodes)
    user, password = (str(options.pop(name, "") or "") for name in ("username", "password"))
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    kind = {RedisType.redis_cluster: "+cluster", RedisType.redis_sentinel: "+sentinel"}.get(online_store.redis_type, "")
    scheme = f"{'rediss' if options.pop('ssl', False) else 'redis'}{kind}"
    path = [quote(online_store.sentinel_master, safe="")] if kind == "+sentinel" else []
    database = options.pop("db", None)
    path += [str(database)] if database is not None and kind != "+cluster" else []
    if kind == "":
        hosts = hosts.split(",")[0]  # as Feast does
    asked = f"?{urlencode(options)}" if options else ""
    return redis_address(f"{scheme}://{login}{hosts}/{'/'.join(path)}{asked}")
