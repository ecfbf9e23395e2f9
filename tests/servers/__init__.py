"""Real servers for the tests: Apache Kafka from its Maven Central jars and Debian's redis-server.

install.py    `make servers`: fetches what is missing; quick when nothing is
guard.py      keeps one server as its child and ends it when pytest ends, however pytest ends
process.py    one server process: start, stop, kill, pause, restart on the same port and data
kafka.py      a broker of one node, and topics and messages in it
redis.py      a Redis, also restarted empty, stalled, with passwords or whatever option
session.py    one of each for a whole run of pytest, whatever number of xdist workers
fixtures.py   what tests ask for: `kafka`, `redis_server`, `new_kafka`, `new_redis`
"""
