"""A real Apache Kafka that lets nobody in without a login, and denies what no rule allows."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it does export them
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from imagebus.broker import EmbeddedBroker

from ..programs import SECONDS, Program, python
from .certificates import Authority

HOST = "127.0.0.1"  # the one name that the broker's certificate is for: `localhost` is another one
ALL_RULES = AclBindingFilter(
    ResourceType.ANY,
    None,  # type: ignore[arg-type]  # any name
    ResourcePatternType.ANY,
    None,  # type: ignore[arg-type]  # any user
    None,  # type: ignore[arg-type]  # from anywhere
    AclOperation.ANY,
    AclPermissionType.ANY,
)

Write = Callable[[Mapping[str, str]], Path]
Start = Callable[..., Program]


@dataclass(frozen=True)
class Login:
    """A user with a password, and how it logs in."""

    user: str
    password: str
    mechanism: str = "SCRAM-SHA-512"

    @property
    def principal(self) -> str:
        return f"User:{self.user}"


class SecuredBroker:
    """The embedded broker with SASL_SSL for its clients, and what its super user does for a test."""

    def __init__(self, folder: Path) -> None:
        authority = Authority("the test's own")
        certificate, key = authority.server(HOST)
        self.ca = folder / "ca.pem"
        self.ca.write_text(authority.pem)
        self.super_user = Login("admin", new_password(), "PLAIN")
        self.plain_user = Login("plain-user", new_password(), "PLAIN")  # PLAIN's users stand in the config
        protocols = {
            "CLIENTS": "SASL_SSL",
            "CLIENTS6": "SASL_SSL",
            "NODES": "PLAINTEXT",
            "CONTROLLER": "PLAINTEXT",
        }
        for_clients = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": certificate,
            "ssl.keystore.key": key,
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "plain.sasl.jaas.config": _jaas("plain.Plain", self.super_user, self.plain_user),
            "scram-sha-512.sasl.jaas.config": _jaas("scram.Scram"),
        }
        self.kafka = EmbeddedBroker(
            config={
                "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # The node talks to itself without a login, on ports that no client is told of.
                "super.users": f"User:ANONYMOUS;{self.super_user.principal}",
                **{f"listener.name.clients.{key}": value for key, value in for_clients.items()},
                **{f"listener.name.clients6.{key}": value for key, value in for_clients.items()},
            }
        )

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.kafka.ports[0]}"

    def settings(self, login: Login) -> dict[str, str]:
        """What a user writes into `kafka.config` who does everything right."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca),
            "sasl.mechanism": login.mechanism,
            "sasl.username": login.user,
            "sasl.password": login.password,
        }

    @cached_property  # a client that nobody keeps takes its futures with it
    def admin(self) -> AdminClient:
        quiet = {"log_level": "0"}  # also when the broker is gone
        return AdminClient({**self.settings(self.super_user), **quiet})

    def new_user(self, name: str = "", password: str = "") -> Login:
        """A user that may log in, and nothing else."""
        login = Login(name or f"user-{uuid.uuid4().hex[:8]}", password or new_password())
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, iterations=4096)
        change = UserScramCredentialUpsertion(login.user, scram, login.password.encode())
        for changed in self.admin.alter_user_scram_credentials([change]).values():
            changed.result()
        return login

    def create_topics(self, *topics: str) -> None:
        for created in self.admin.create_topics([NewTopic(each, 2) for each in topics]).values():
            created.result()

    def send(self, topic: str, value: bytes) -> None:
        producer = Producer(dict(self.settings(self.super_user)))
        producer.produce(topic, value)
        assert producer.flush(SECONDS) == 0

    def allow(self, bindings: Iterable[AclBinding]) -> None:
        wanted = set(bindings)
        for created in self.admin.create_acls(list(wanted)).values():
            created.result()
        wait_until(lambda: wanted <= self.rules())  # they are in force a little later

    def take_back(self, binding: AclBinding) -> None:
        """Remove one rule."""
        one = AclBindingFilter(
            *(binding.restype, binding.name, binding.resource_pattern_type, binding.principal),
            *(binding.host, binding.operation, binding.permission_type),
        )
        for deleted in self.admin.delete_acls([one]).values():
            assert deleted.result() == [binding]

    def rules(self) -> set[AclBinding]:
        return set(self.admin.describe_acls(ALL_RULES).result())

    def deny_all(self) -> None:
        """Remove every rule and every topic but Kafka's own."""
        for deleted in self.admin.delete_acls([ALL_RULES]).values():
            deleted.result()
        topics = self._topics()
        for gone in self.admin.delete_topics(topics).values() if topics else ():
            gone.result()
        wait_until(lambda: not self.rules() and not self._topics())  # they are gone a little later

    def _topics(self) -> list[str]:
        return [each for each in self.admin.list_topics().topics if not each.startswith("__")]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what the brokers have confirmed, and do a moment later."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rule(
    who: Login,
    operation: AclOperation,
    kind: ResourceType,
    name: str,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBinding:
    """That `who` may do `operation` to what is called so."""
    return AclBinding(kind, name, pattern, who.principal, "*", operation, AclPermissionType.ALLOW)


def new_password() -> str:
    return uuid.uuid4().hex


def _jaas(module: str, *logins: Login) -> str:
    users = "".join(f' user_{each.user}="{each.password}"' for each in logins)
    return f"org.apache.kafka.common.security.{module}LoginModule required{users};"


@pytest.fixture(scope="session")
def secured(kafka_jars_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    broker = SecuredBroker(tmp_path_factory.mktemp("secured"))
    with broker.kafka:
        yield broker


@pytest.fixture
def denying(secured: SecuredBroker) -> SecuredBroker:
    """The secured broker without any rule or topic."""
    secured.deny_all()
    return secured


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """Writes a config file as its owner should keep it."""

    def write(settings: Mapping[str, str]) -> Path:
        path = tmp_path / f"{uuid.uuid4().hex[:8]}.config"
        path.touch(mode=0o600)
        path.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        return path

    return write


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs, and ends with the test those that are left."""
    programs: list[Program] = []

    def start(script: str, *options: str | Path) -> Program:
        programs.append(python(script, *options))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


def error_line(program: Program, script: str) -> str:
    """The one line that a failed program ends with; what it said before is news and warnings."""
    assert program.wait() == 1, program
    assert not any("Traceback" in line for line in program.err), program
    (line,) = [line for line in program.err if line.startswith(f"{script}: ")]
    return line
