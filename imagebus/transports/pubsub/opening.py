"""Topics and subscriptions: created when missing, and looked at."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound

from imagebus.errors import ConfigError
from imagebus.transports.pubsub.clients import PASSING, Clients, check_name

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0  # Pub/Sub answers within 1 s; an emulator that is just starting within 5
CONNECT_PAUSE_SECONDS = 0.2  # between two tries to connect
CALL_SECONDS = 10.0  # for a call about a topic or a subscription
RETENTION = timedelta(days=7)  # of a topic created here, for groups that join later
KEPT_FOR_A_REQUESTOR = timedelta(minutes=10)  # the least that a subscription may keep its messages
LIFE_OF_AN_INBOX = timedelta(days=1)  # the least after which Pub/Sub deletes an unused subscription
# Deliveries before Pub/Sub itself dead-letters a message: a net under this project's own dead letters.
MAX_DELIVERIES = 100
_DELETED = "_deleted-topic_"  # stands in place of the topic when that is deleted, even if it is created again


@dataclass(frozen=True)
class Plan:
    """A subscription: its full name, its topic, and the settings that it is created with."""

    name: str
    topic: str
    settings: Mapping[str, Any]


class Place(Enum):
    """Where a subscription is."""

    ATTACHED = auto()  # to its topic
    ORPHANED = auto()  # its topic was deleted: it keeps what it has, and gets nothing more
    GONE = auto()  # deleted, or expired


# --- topics ------------------------------------------------------------------------------------


def create_topics(clients: Clients, names: Iterable[str]) -> None:
    """Create the missing ones, once Pub/Sub answers.

    Raises `ConfigError` for names that it does not take, `ConnectionFailed`, `AccessDenied`.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    for name in names:
        check_name(name)
    for name in names:
        while True:
            try:
                if not has_topic(clients, name):
                    _create_topic(clients, name)
                break
            except GoogleAPICallError as error:
                if error.grpc_status_code not in PASSING or time.monotonic() > deadline:
                    raise clients.translate(error, f"topic {name!r}", "pubsub.topics.get") from None
                time.sleep(CONNECT_PAUSE_SECONDS)


def has_topic(clients: Clients, name: str) -> bool:
    """Whether a topic exists; raises `GoogleAPICallError`."""
    try:
        clients.publisher.get_topic(request={"topic": clients.topic(name)}, retry=None, timeout=CALL_SECONDS)
    except NotFound:
        return False
    return True


def _create_topic(clients: Clients, name: str) -> None:
    request = {"name": clients.topic(name), "message_retention_duration": RETENTION}
    try:
        clients.publisher.create_topic(request=request, retry=None, timeout=CALL_SECONDS)
        log.info("created topic %s", name)
    except AlreadyExists:  # another program was faster
        pass
    except NotFound as error:
        raise clients.no_project(error) from None
    except GoogleAPICallError as error:
        raise clients.translate(error, f"topic {name!r}", "pubsub.topics.create") from None


# --- subscriptions -----------------------------------------------------------------------------


def shared(clients: Clients, topic: str, group: str, dead_letter_topic: str | None) -> Plan:
    """The subscription that a group's members share."""
    settings: dict[str, Any] = {
        "expiration_policy": {}
    }  # never: an idle month must not cost the group its place
    if dead_letter_topic is not None:
        settings["dead_letter_policy"] = {
            "dead_letter_topic": clients.topic(dead_letter_topic),
            "max_delivery_attempts": MAX_DELIVERIES,
        }
    return Plan(clients.subscription(check_name(f"{topic}-{group}")), topic, settings)


def private(clients: Clients, topic: str, requestor: str) -> Plan:
    """A requestor's subscription, to everything that is not marked as another requestor's."""
    settings = {
        "filter": f'NOT attributes:requestor OR attributes.requestor = "{requestor}"',
        "message_retention_duration": KEPT_FOR_A_REQUESTOR,
        "expiration_policy": {"ttl": LIFE_OF_AN_INBOX},
    }
    return Plan(clients.subscription(check_name(f"{topic}-requestor-{requestor}")), topic, settings)


def join(clients: Clients, plan: Plan) -> None:
    """Create a group's subscription if it is missing: then it starts at the oldest message that the topic keeps.

    Raises `ConfigError` for an existing one that cannot serve the group, `TransportError`.
    """
    try:
        existing = _get(clients, plan.name)
    except NotFound:
        if create(clients, plan, datetime.now(UTC) - RETENTION):
            log.info("created subscription %s", short(plan.name))
        return
    except GoogleAPICallError as error:
        raise clients.translate(error, plan.name, "pubsub.subscriptions.get") from None
    check(existing, plan, clients.topic(plan.topic))


def create(clients: Clients, plan: Plan, start: datetime | None) -> bool:
    """Create a subscription that begins with what was sent after `start`, else now; False when it exists."""
    request = {
        "name": plan.name,
        "topic": clients.topic(plan.topic),
        "ack_deadline_seconds": 10,
        **plan.settings,
    }
    try:
        _create_dead_letter_topic(clients, plan)
        clients.subscriber.create_subscription(request=request, retry=None, timeout=CALL_SECONDS)
    except AlreadyExists:
        return False
    except GoogleAPICallError as error:
        raise clients.translate(error, plan.name, "pubsub.subscriptions.create") from None
    if start is None and clients.is_emulator:  # where a new one begins with the topic's retained messages
        start = datetime.now(UTC)
    if start is not None:
        _seek(clients, plan.name, start)
    return True


def _seek(clients: Clients, name: str, start: datetime) -> None:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            clients.subscriber.seek(
                request={"subscription": name, "time": start}, retry=None, timeout=CALL_SECONDS
            )
            return
        except GoogleAPICallError as error:
            if error.grpc_status_code not in PASSING or time.monotonic() > deadline:
                log.warning("%s: what was sent before now is not seen: %s", name, error.message)
                return
            time.sleep(CONNECT_PAUSE_SECONDS)


def _create_dead_letter_topic(clients: Clients, plan: Plan) -> None:
    """It may have gone together with the topic, and without it there can be no subscription."""
    policy = plan.settings.get("dead_letter_policy")
    if policy is not None and not has_topic(clients, topic := short(policy["dead_letter_topic"])):
        _create_topic(clients, topic)


def look(clients: Clients, plan: Plan) -> Place:
    """Where a subscription is; raises `GoogleAPICallError`."""
    try:
        orphaned = _get(clients, plan.name).topic == _DELETED
    except NotFound:
        return Place.GONE
    return Place.ORPHANED if orphaned else Place.ATTACHED


def delete(clients: Clients, name: str) -> None:
    """Delete a subscription; raises `GoogleAPICallError`."""
    clients.subscriber.delete_subscription(request={"subscription": name}, retry=None, timeout=CALL_SECONDS)


def check(existing: Any, plan: Plan, topic: str) -> None:
    """Judge a group's existing `Subscription`, which someone may have created by hand.

    Raises `ConfigError` where it cannot be read, or reads something else; warns where it reads less.
    """
    name = short(existing.name)
    if existing.topic not in (topic, _DELETED):
        raise ConfigError(
            f"subscription {name} is of {existing.topic}, not of {topic}: delete it, or choose another group"
        )
    if (
        existing.push_config.push_endpoint
        or existing.bigquery_config.table
        or existing.cloud_storage_config.bucket
    ):
        raise ConfigError(
            f"subscription {name} delivers elsewhere (push, BigQuery or Cloud Storage) and cannot be pulled: "
            "delete it, or choose another group"
        )
    if existing.detached:
        raise ConfigError(
            f"subscription {name} was detached from its topic and gets nothing any more: "
            "delete it, or choose another group"
        )
    if existing.filter:
        log.warning(
            "subscription %s has a filter, and requests that do not match it are never answered: %s",
            name,
            existing.filter,
        )
    wanted = plan.settings.get("dead_letter_policy")
    if wanted and existing.dead_letter_policy.dead_letter_topic in ("", _DELETED):
        log.warning(
            "subscription %s has no dead-letter topic, so deliveries are not counted and a message that kills its "
            "readers is not found: gcloud pubsub subscriptions update %s --dead-letter-topic=%s "
            "--max-delivery-attempts=%d",
            name,
            name,
            short(wanted["dead_letter_topic"]),
            wanted["max_delivery_attempts"],
        )


def short(name: str) -> str:
    """The last part of a full name."""
    return name.rpartition("/")[2]


def _get(clients: Clients, name: str) -> Any:
    return clients.subscriber.get_subscription(
        request={"subscription": name}, retry=None, timeout=CALL_SECONDS
    )
