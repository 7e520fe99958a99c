"""Apache Kafka behind the six verbs, on confluent-kafka (librdkafka).

transport.py    the verbs, and the order of things that is the delivery guarantee
clients.py      librdkafka's clients from a config file, and its errors as this project's
delivery.py     at least once, and exactly once
partitions.py   whose the partitions are, and how far the answers go
probe.py        who is at the other end, and why a secured connection does not come about
"""

from imagebus.transports.kafka.transport import KafkaTransport

__all__ = ["KafkaTransport"]
