"""Talking to Redis: commands out and answers in, one round trip for any number of them, from many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.redis_direct import DirectConnection, DirectConnections
from headrace.stores.redis_scripts import ALL, Script
from headrace.stores.redis_urls import RedisAddress, connect, has_hiredis, speaking_to

T = TypeVar("T")
Command = tuple[Any, ...]

SCAN_KEYS = 1000
SEND_BYTES = 1 << 14


def call(script: Script, keys: Sequence[bytes], arguments: Sequence[Any]) -> Command:
    """The command that runs a script."""
    return ("EVALSHA", script.sha, len(keys), *keys, *arguments)


class Talk:
    """A pool of connections to one address. Thread-safe; a forked process may go on using it.

    Args:
        address: where. timeout_s: for connecting and for each answer. connections: the most at a time, for lookups and
            for all else each.
    """

    def __init__(self, address: RedisAddress, timeout_s: float, connections: int) -> None:
        self.address = address
        self.cluster = address.kind == "cluster"
        self._client = connect(address, timeout_s, connections)
        self._direct: DirectConnections | None = None  # of lookups
        self._others: DirectConnections | None = None  # of all else
        if not self.cluster and has_hiredis():
            self._direct, self._others = (
                DirectConnections(self._client.connection_pool, timeout_s, connections) for _ in range(2)
            )
        self._closed = False

    def ask(self, commands: Sequence[Command], together: bool = False) -> list[Any]:
        """The answers to commands sent in one round trip.

        Args:
            together: nothing comes between the commands; not in a cluster, whose servers know nothing of each other.

        Raises:
            UnreachableError: no answer in time, or the server cannot do it just now; whether it did is not known.
            StoreError: an answer is another error.
        """
        if self._closed:
            raise StoreError(f"The connection to Redis at {self.address.shown} is closed. Open another store.")
        if not commands:
            return []
        with speaking_to(self.address):
            answers = self.send(commands, together)
            if any(type(each).__name__ == "NoScriptError" for each in answers):
                self._load_scripts()  # a server forgets them when it restarts
                answers = self.send(commands, together)
            for each in answers:
                if isinstance(each, Exception):
                    raise each
            return answers

    def _load_scripts(self) -> None:
        if not self.cluster:
            self.send([("SCRIPT", "LOAD", script.text) for script in ALL], together=False)
            return
        for script in ALL:
            self._client.script_load(script.text)  # on every server of it

    def ask_again(self, commands: Sequence[Command], together: bool = False) -> list[Any]:
        """`ask` for commands that only read: asked a second time when a connection turned out to be dead."""
        try:
            return self.ask(commands, together)
        except UnreachableError as error:
            if "Timeout" in type(error.__cause__).__name__:
                raise
            return self.ask(commands, together)

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """`ask_again` for lookups, with as little around it as can be; not in a cluster.

        Args:
            data: commands that only read, as they are sent. count: how many they are.
        """
        if self._closed:
            raise StoreError(f"The connection to Redis at {self.address.shown} is closed. Open another store.")
        exchange = self._exchanged if self._direct is None else self._direct.exchange
        try:
            return exchange(data, count)
        except Exception as error:
            with speaking_to(self.address):
                if self._direct is not None or type(error).__name__ != "ConnectionError":
                    raise
                return exchange(data, count)  # the connection was dead

    @property
    def direct(self) -> bool:
        """Whether there are connections of single threads; not in a cluster, nor without the package hiredis."""
        return self._direct is not None

    def link(self) -> DirectConnection:
        """A connection of one thread, which gives it back or closes it. Raises redis-py's errors of connections.

        One that was given back may have been cut off since.
        """
        assert self._direct is not None
        return self._direct.link()

    def give_back(self, link: DirectConnection) -> None:
        """A connection that waits for no answers may be another's."""
        assert self._direct is not None
        self._direct.give_back(link)

    def _exchanged(self, data: bytes, count: int) -> list[Any]:
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_packed_command([data], check_health=False)
            read = connection.read_response
            return [read() for _ in range(count)]
        except BaseException:
            connection.disconnect()  # answers that are still to come belong to nobody
            raise
        finally:
            pool.release(connection)

    def send(self, commands: Sequence[Command], together: bool) -> list[Any]:
        """The answers, errors among them; raises redis-py's own errors of connections."""
        if self.cluster:
            with self._client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                found: list[Any] = pipe.execute(raise_on_error=False)
                return found
        wrapped = together and len(commands) > 1
        count = len(commands) + 2 * wrapped
        speak = self._by_pool if self._others is None else self._directly
        answers = speak([("MULTI",), *commands, ("EXEC",)] if wrapped else commands, count)
        if not wrapped:
            return answers
        done = answers[-1]
        if isinstance(done, Exception):  # one was refused before it ran, so none ran
            raise next((each for each in answers[1:-1] if isinstance(each, Exception)), done)
        return list(done)

    def _directly(self, commands: Sequence[Command], count: int) -> list[Any]:
        """On a connection of one thread."""
        from hiredis import pack_command

        assert self._others is not None
        connection = self._others.take()
        try:
            for data in _in_parts(pack_command, commands):
                connection.send(data)
            answers = connection.receive(count, refusals=True)
        except BaseException:
            self._others.drop(connection)
            raise
        self._others.put(connection)
        return answers

    def _by_pool(self, commands: Sequence[Command], count: int) -> list[Any]:
        """On a connection of redis-py's pool."""
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            for data in _in_parts(lambda command: b"".join(connection.pack_command(*command)), commands):
                connection.send_packed_command([data], check_health=False)
            return [_answer(connection.read_response) for _ in range(count)]
        except BaseException:
            connection.disconnect()  # answers that are still to come belong to nobody
            raise
        finally:
            pool.release(connection)

    def keys(self, pattern: bytes) -> set[bytes]:
        """Every key that matches, of all that there are; keys written meanwhile may be missing."""
        with speaking_to(self.address):
            return set(self._client.scan_iter(match=pattern, count=SCAN_KEYS))

    def close(self) -> None:
        self._closed = True
        for each in (self._direct, self._others):
            if each is not None:
                each.close()
        self._client.close()
        if self.cluster:
            return
        pool = self._client.connection_pool
        pool.disconnect()
        if self.address.kind == "sentinel":
            for sentinel in pool.sentinel_manager.sentinels:
                sentinel.close()


def _in_parts(pack: Callable[[Command], bytes], commands: Sequence[Command]) -> Iterator[bytes]:
    """Commands as they are sent; of many some are on their way while the rest is packed: client and server work at the
    same time."""
    packed, size = [], 0
    for command in commands:
        packed.append(pack(command))
        size += len(packed[-1])
        if size > SEND_BYTES:
            yield b"".join(packed)
            packed, size = [], 0
    if packed:
        yield b"".join(packed)


def _answer(read: Callable[[], Any]) -> Any:
    from redis.exceptions import ConnectionError, ResponseError

    try:
        return read()
    except ResponseError as error:
        return error
    except ConnectionError as error:
        if type(error).__name__ == "BusyLoadingError":
            return error
        raise
