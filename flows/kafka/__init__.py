"""Kafka: settings of its clients, what a cluster has, messages to events.

settings.py    KafkaSource -> librdkafka settings, tuned, secrets from the environment
topics.py      partitions, offsets, making topics; errors that say what to check
decoding.py    messages -> EventBatch, by format: JSON, Avro, Protobuf, raw
"""
