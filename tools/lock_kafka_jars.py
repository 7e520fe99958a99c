"""Write imagebus/broker/jars.lock anew, for a new version of Kafka:

    python3 -m tools.lock_kafka_jars

Set `KAFKA_VERSION` in imagebus/broker/jars.py first, and look at the difference afterwards.
"""

import hashlib

import jgo

from imagebus.broker.jars import KAFKA_VERSION, LOCK_FILE

# Kafka logs through SLF4J 1.7 and prints nothing without a binding for it. The "!" keeps log4j's own
# dependency management out: without it, it swaps kafka-clients for an older release.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.logging.log4j:log4j-slf4j-impl:2.25.5!"
HEADER = "# SHA-256, bytes and Maven coordinate of each jar; made by tools/lock_kafka_jars.py\n"


def main() -> None:
    """Resolve, fetch and hash."""
    lines = []
    for artifact in jgo.resolve(COORDINATES):
        jar = artifact.resolve().read_bytes()
        coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
        lines.append(f"{hashlib.sha256(jar).hexdigest()} {len(jar):8} {coordinate}\n")
    LOCK_FILE.write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
