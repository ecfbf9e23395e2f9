"""What librdkafka measures of a client: lag, round trips to the brokers, what waits in its queues."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ClientStatistics:
    """One look at a client.

    lag: (topic, partition) -> offsets between the next message that the client hands out and the partition's end, of
        partitions that were fetched from. What the client has read ahead counts as lag.
    round_trip_s: broker -> mean time of a request to it since the look before, in seconds, of those that answered.
    up: brokers with a connection that stands. down: those with a connection that is being tried again.
    queued: messages read ahead, or waiting to be sent. queued_bytes: the same in bytes.
    received: messages since the client was made. joining: where a consumer is in joining its group, in librdkafka's
        words, "steady" being joined; "" of other clients.
    """

    lag: Mapping[tuple[str, int], int]
    round_trip_s: Mapping[str, float]
    up: tuple[str, ...]
    down: tuple[str, ...]
    queued: int
    queued_bytes: int
    received: int
    joining: str = ""


def statistics_config(hear: Callable[[ClientStatistics], None], every_s: float = 5.0) -> dict[str, Any]:
    """Settings that make a client tell its statistics every so often, while it is polled.

    `hear` is called from `poll` or `consume`; it must return at once.
    """
    return {"statistics.interval.ms": max(1, round(every_s * 1_000)), "stats_cb": lambda text: hear(read(text))}


def read(text: str) -> ClientStatistics:
    """librdkafka's statistics, from its JSON (STATISTICS.md of librdkafka tells what is in it)."""
    told = json.loads(text)
    brokers = {
        b["name"].rpartition("/")[0]: b
        for b in told["brokers"].values()
        if b["nodeid"] >= 0 or b["source"] == "configured"
    }
    partitions = [(p["topic"], p["partitions"].values()) for p in told["topics"].values()]
    return ClientStatistics(
        lag={
            (topic, p["partition"]): max(0, p["ls_offset"] - p["app_offset"])
            for topic, known in partitions
            for p in known
            if p["partition"] >= 0 and p["app_offset"] >= 0 and p["ls_offset"] >= 0
        },
        round_trip_s={name: b["rtt"]["avg"] / 1e6 for name, b in brokers.items() if b["rtt"]["cnt"] > 0},
        up=tuple(sorted(name for name, b in brokers.items() if b["state"] == "UP")),
        down=tuple(sorted(name for name, b in brokers.items() if b["state"] in ("DOWN", "TRY_CONNECT", "CONNECT"))),
        queued=told["msg_cnt"] + sum(p["fetchq_cnt"] for _, known in partitions for p in known),
        queued_bytes=told["msg_size"] + sum(p["fetchq_size"] for _, known in partitions for p in known),
        received=told["rxmsgs"],
        joining=told.get("cgrp", {}).get("join_state", ""),
    )
