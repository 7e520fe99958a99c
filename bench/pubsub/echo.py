"""What the emulator can do at all: every request gets the same answer, without a model.

    python -m bench.pubsub.echo GOOGLE_JSON REQUESTS REPLIES

The same messages asked for, the same number published as they come, and acknowledged, with nothing decoded
and nothing kept, in the quickest of the ways that were tried.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bench.references.echo import REPLY
from imagebus.transports.pubsub.account import read_service_account
from imagebus.transports.pubsub.attributes import PubsubMessage
from imagebus.transports.pubsub.clients import AcknowledgeRequest, Clients, PublishRequest, PullRequest
from imagebus.transports.pubsub.intake import MAX_IN_HAND, PULL_PAUSE_SECONDS
from imagebus.transports.pubsub.opening import join, shared

NAMES = ("correlation_id", "sha256", "requestor")


def main(account: str, requests: str, replies: str) -> None:
    clients = Clients(read_service_account(account))
    plan = shared(clients, requests, "echo", None)
    join(clients, plan)
    subscription = plan.name
    question = PullRequest(subscription=subscription, max_messages=MAX_IN_HAND, return_immediately=True)

    def answer(received: Any) -> None:
        messages = []
        for each in received:
            attributes = dict(each.message.attributes)
            value = REPLY % (attributes["correlation_id"].encode(), attributes["sha256"].encode())
            kept = {name: attributes[name] for name in NAMES if name in attributes}
            messages.append(PubsubMessage(data=value, attributes=kept))
        clients.publish(PublishRequest(topic=clients.topic(replies), messages=messages))
        ack_ids = [each.ack_id for each in received]
        clients.acknowledge(AcknowledgeRequest(subscription=subscription, ack_ids=ack_ids))

    print("ready:", file=sys.stderr, flush=True)
    answered = 0
    # As many answers on their way at once as the replier has: one, while the next batch is taken.
    under_way: Future[None] | None = None
    with ThreadPoolExecutor(1) as pool:
        while True:
            received = clients.pull(question).received_messages
            if under_way is not None:
                under_way.result()
                under_way = None
                print("answered:", answered, file=sys.stderr, flush=True)
            if received:
                under_way = pool.submit(answer, received)
                answered += len(received)
            else:
                time.sleep(PULL_PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
