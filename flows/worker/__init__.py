"""Live flows from Kafka: a worker of a consumer group, the tasks it runs, the exchange between them.

topic partition -> decode -> admission -> operators -> online store     online.py: a thread, coalesced, fenced
                        |                       '----> offline log      log.py: a thread, counted by checkpoints
                        '-> repartition topic -> ...                    exchange.py: where the topic is not keyed by the entity
"""
