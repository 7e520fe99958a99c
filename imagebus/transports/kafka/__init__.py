"""Apache Kafka as a bus, on confluent-kafka (librdkafka).

bus.py               publishing, and the readers
inbox.py             a requestor's reader: everything from now on
member.py            a replier's: its share of the work; the order of things that is the delivery guarantee
positions.py         where a member begins to read each partition; holding.py where it does not go on for a while
ledger.py            what a member received, answered and committed, behind one lock
partitions.py        the same as plain data: ownership of the partitions, and progress in them
delivery.py          at least once; transactions.py exactly once; sender.py one message judged by its own size
outgoing.py          a batch's outcomes on their way; unconfirmed.py those that the brokers do not confirm for long
partition_counts.py  whether a topic has the partition requested for a reply
records.py           Kafka's records as messages
config.py            the file; lines.py its syntax; entries.py its settings as plain data; checks.py them as a whole
foreign.py           settings of other clients, and what to write here; jaas.py Java's login line
settings.py          librdkafka's clients from the file; refusals.py why it refuses them; driver_log.py its log
connecting.py        one connection; probe.py why one does not come about; errors.py librdkafka's errors
topics.py            creating topics, and asking about them
advertised.py        advertised addresses that cannot be reached
"""

from imagebus.transports.kafka.bus import KafkaBus

__all__ = ["KafkaBus"]
