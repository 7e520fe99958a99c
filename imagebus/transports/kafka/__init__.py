"""Apache Kafka as a bus, on confluent-kafka (librdkafka).

bus.py               publishing, and who reads
inbox.py             a requestor's reader: everything from now on
member.py            a replier's: its share of the work; the order of things that is the delivery guarantee
ledger.py            what a member received, answered and asked the group to remember, behind one lock
partitions.py        the same as plain data: whose the partitions are, and how far the answers go
delivery.py          at least once; transactions.py exactly once; sender.py one message judged by its own size
partition_counts.py  whether a topic has the partition that a reply is asked for in
records.py           Kafka's records as messages
config.py            the file; settings.py librdkafka's clients from it
connecting.py        one connection; probe.py why a secured one does not come about; errors.py librdkafka's errors
"""

from imagebus.transports.kafka.bus import KafkaBus

__all__ = ["KafkaBus"]
