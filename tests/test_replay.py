"""Dead letters sent back, on the memory bus; on real ones and as a program in test_delivery.py and test_pubsub.py."""

from __future__ import annotations

import pytest

from imagebus.errors import ErrorCode
from imagebus.replay import ROUNDS, replay_dead_letters
from imagebus.transports.memory import MemoryBroker, MemoryBus
from imagebus.wire.dead_letters import DEAD_LETTER_CODE, DEAD_LETTER_CUT
from imagebus.wire.message import Message, Position

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more will come to a memory bus than what is there."""
    monkeypatch.setattr("imagebus.replay.QUIET_SECONDS", 0.01)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def put(broker: MemoryBroker, value: bytes, code: str = ErrorCode.NO_ID, *headers: tuple[str, bytes]) -> None:
    with MemoryBus(broker) as bus:
        bus.publish(Message("requests.dlt", value, headers=[(DEAD_LETTER_CODE, code.encode()), *headers]))


def replay(
    broker: MemoryBroker, *, code: str | None = None, max_rounds: int = 3, dry_run: bool = False
) -> list[str]:
    with MemoryBus(broker) as bus:
        lines = replay_dead_letters(
            bus,
            *("requests.dlt", "requests"),
            group=f"repliers.replay.{code}",
            code=code,
            max_rounds=max_rounds,
            dry_run=dry_run,
        )
        return list(lines)


def test_each_dead_letter_is_sent_back_once_and_has_a_line(broker: MemoryBroker) -> None:
    put(broker, b"one")
    put(broker, b"three", ErrorCode.KILLER)

    first, second = replay(broker), replay(broker)

    assert first == [
        "NO_ID, 3 bytes: sent back",
        "KILLER, 5 bytes: sent back",
        "sent 2 back to requests, 0 stay in requests.dlt",
    ]
    assert second == ["sent 0 back to requests, 0 stay in requests.dlt"]
    assert [message.value for message in broker.topics["requests"]] == [b"one", b"three"]


def test_only_those_of_the_code_are_sent_and_the_others_wait_for_another_call(broker: MemoryBroker) -> None:
    put(broker, b"no id")
    put(broker, b"killer", ErrorCode.KILLER)

    chosen, others = replay(broker, code=ErrorCode.KILLER), replay(broker, code=ErrorCode.NO_ID)

    assert chosen[-1] == "sent 1 back to requests, 1 stay in requests.dlt"
    assert others[-1] == "sent 1 back to requests, 1 stay in requests.dlt"
    assert [message.value for message in broker.topics["requests"]] == [b"killer", b"no id"]


def test_a_dry_run_sends_and_remembers_nothing(broker: MemoryBroker) -> None:
    put(broker, b"one")

    dry, real = replay(broker, dry_run=True), replay(broker)

    assert dry[-1] == "would send 1 back to requests, 0 stay in requests.dlt"
    assert real[-1] == "sent 1 back to requests, 0 stay in requests.dlt"


def test_rounds_are_counted_in_a_header_and_end(broker: MemoryBroker) -> None:
    put(broker, b"one", ErrorCode.NO_ID, (ROUNDS, b"1"))
    put(broker, b"again", ErrorCode.NO_ID, (ROUNDS, b"2"))
    put(broker, b"forged", ErrorCode.NO_ID, (ROUNDS, b"-9"))

    lines = replay(broker, max_rounds=2)

    assert [line.partition(": ")[2] for line in lines[:-1]] == [
        "sent back",
        "kept: it was sent back 2 times",
        "sent back",
    ]
    assert [message.header(ROUNDS) for message in broker.topics["requests"]] == ["2", "1"]


def test_a_dead_letter_that_was_cut_off_is_kept(broker: MemoryBroker) -> None:
    put(broker, b"half", ErrorCode.NO_ID, (DEAD_LETTER_CUT, b"1000"))

    assert replay(broker)[0] == "NO_ID, 4 bytes: kept: its value was cut off"


def test_a_code_that_is_none_of_ours_is_not_repeated(broker: MemoryBroker) -> None:
    put(broker, b"?", "\x1b[2J")

    assert replay(broker)[0] == "no code, 1 bytes: sent back"


def test_a_letter_goes_back_without_its_callers_deadline(broker: MemoryBroker) -> None:
    """Else its answer would be that it is too late, whatever was mended."""
    put(broker, b"late", ErrorCode.KILLER, ("deadline", b"1000"), ("top", b"2"))

    assert replay(broker)[0] == "KILLER, 4 bytes: sent back"

    (message,) = broker.topics["requests"]
    assert message.header("deadline") is None
    assert message.header("top") == "2"


def test_what_comes_back_at_once_is_left_to_another_call(broker: MemoryBroker) -> None:
    class Unmended(MemoryBroker):
        """Its repliers put whatever they get aside again."""

        def append(self, message: Message) -> Position:
            position = super().append(message)
            if message.topic == "requests":
                headers = [*message.headers, (DEAD_LETTER_CODE, b"NO_ID")]
                super().append(Message("requests.dlt", message.value, headers=headers))
            return position

    broker = Unmended()
    put(broker, b"one")
    put(broker, b"two")

    first, second = replay(broker), replay(broker)

    assert first[-1] == "sent 2 back to requests, 0 stay in requests.dlt"
    assert second[-1] == "sent 2 back to requests, 0 stay in requests.dlt"
    assert [message.header(ROUNDS) for message in broker.topics["requests"]] == ["1", "1", "2", "2"]


def test_letters_of_a_clock_that_is_ahead_are_sent_back_too(broker: MemoryBroker) -> None:
    put(broker, b"one")
    (letter,) = broker.topics["requests.dlt"]
    assert letter.position is not None
    ahead = letter.position._replace(timestamp=letter.position.timestamp + 3_600_000)
    broker.topics["requests.dlt"] = [letter._replace(position=ahead)]

    assert replay(broker)[-1] == "sent 1 back to requests, 0 stay in requests.dlt"


def test_a_letter_that_the_topic_is_too_small_for_goes_behind_the_others_which_are_sent_once(
    broker: MemoryBroker,
) -> None:
    for value in (b"one", b"large", b"two"):
        put(broker, value)
    broker.max_message_bytes["requests"] = 4

    first, second = replay(broker), replay(broker)

    assert first[-2:] == [
        "NO_ID, 5 bytes: kept: requests takes no message that large",
        "sent 2 back to requests, 1 stay in requests.dlt",
    ]
    assert second[-1] == "sent 0 back to requests, 1 stay in requests.dlt"
    assert [message.value for message in broker.topics["requests"]] == [b"one", b"two"]
    assert broker.topics["requests.dlt"][-1].value == b"large"
