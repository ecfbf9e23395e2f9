"""Two sources of your own: an HTTP API that is asked again and again, and a web socket. Each is a few lines.

    python readers.py        starts a server of both kinds on this machine, and reads from it

The same views against servers of yours: STATIONS_HTTP and STATIONS_SOCKET say where, `headrace run readers.py --live`.
"""

import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from websockets.sync.client import connect

from headrace import Entity, Event, EventTime, FeatureView, PythonSource, run
from headrace.flows.recording import LOG
from headrace.stores.offline import OfflineLog


class Reading(Event):
    id: int
    station: str
    pm10: float
    at: EventTime


class Poller:
    """GET url?after=ID gives a JSON list of what came after it. every_s: the pause when nothing came; None: the end."""

    def __init__(self, url: str, every_s: float | None = 5.0) -> None:
        self.url, self.every_s = url, every_s

    def read(self, position: Any) -> Iterator[tuple[list[dict[str, Any]], Any]]:
        after = position or 0
        while True:
            with urllib.request.urlopen(f"{self.url}?after={after}", timeout=10) as answer:
                rows = json.load(answer)
            if rows:
                after = rows[-1]["id"]
                yield rows, after
            elif self.every_s is None:
                return
            else:
                time.sleep(self.every_s)


class Socket:
    """A web socket that is told where to begin, and then sends one reading a message."""

    def __init__(self, url: str) -> None:
        self.url = url

    def read(self, position: Any) -> Iterator[tuple[list[dict[str, Any]], Any]]:
        with connect(self.url) as socket:
            socket.send(json.dumps({"after": position or 0}))
            for message in socket:  # ends when the server closes; a connection that breaks raises
                row = json.loads(message)
                yield [row], row["id"]


polled = PythonSource(
    Poller(os.environ.get("STATIONS_HTTP", "http://127.0.0.1:8080/readings")), Reading, name="polled", lateness="1m"
)
pushed = PythonSource(
    Socket(os.environ.get("STATIONS_SOCKET", "ws://127.0.0.1:8081")), Reading, name="pushed", lateness="1m", dedup="id"
)
station = Entity("station", key="station")


class Polled(FeatureView, source=polled, entity=station):
    pm10_1h = Reading.pm10.mean(last="1h")
    readings_1h = Reading.count(last="1h")


class Pushed(FeatureView, source=pushed, entity=station):
    pm10_1h = Reading.pm10.mean(last="1h")
    readings_1h = Reading.count(last="1h")


def main() -> None:
    from stations import Stations

    with Stations() as there, tempfile.TemporaryDirectory() as data:
        polled.reader.url, polled.reader.every_s, pushed.reader.url = there.http, None, there.socket
        there.add(6)
        print("read:", dict(run([Polled, Pushed], data).read))
        there.add(4)  # while nobody reads
        print("read on:", dict(run([Polled, Pushed], data).read))
        print("asked from:", there.asked)
        log = OfflineLog(os.path.join(data, LOG))
        for view in (Polled, Pushed):
            newest = log.scan(view, tail=False).to_pylist()[-1]
            print(
                f"{view.__name__}: {newest['station']} has {newest['readings_1h']} readings, mean {newest['pm10_1h']}"
            )


if __name__ == "__main__":
    main()
