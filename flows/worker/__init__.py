"""Live flows from Kafka: a worker of a consumer group, the tasks it runs, the exchange between them.

topic partition -> decode -> admission -> operators -> online store    online.py: a thread; coalesced, fenced
                                 |            '------> offline log     log.py: a thread; counts with checkpoints
                                 '-> repartition topic -> ...          exchange.py: for views of other keys
"""
