"""Reading `kafka.config`: librdkafka's `key = value` lines, with the place of each key remembered.

    # a comment
    bootstrap.servers = localhost:9092
    sasl.password = ${KAFKA_PASSWORD}

Spaces around either side are dropped, `=` may stand in values, `${NAME}` is taken from the
environment. Which keys exist is librdkafka's to say, so that any of its settings passes through; what
would run code or break the project's promise is refused here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagebus.errors import ConfigError

# Settings that load a library into the process or run a shell command.
_LOADS_CODE = frozenset(
    {"plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers"}
)
# Settings the delivery guarantee rests on: librdkafka knows them, but only these values are right.
_FIXED = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.idempotence": "true",
    "isolation.level": "read_committed",
}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True)
class Settings(Mapping[str, str]):
    """The settings of one file, in its order; `where(key)` is the place of a key, for messages."""

    path: Path
    entries: Mapping[str, str]
    lines: Mapping[str, int]

    def __getitem__(self, key: str) -> str:
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Settings({self.path}, keys={sorted(self.entries)})"  # never the values: passwords

    def where(self, key: str) -> str:
        """`file:line` of a key; the file alone for one that is not in it."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)


def read_settings(path: str | Path) -> Settings:
    """Read a file of `key = value` lines.

    Raises `ConfigError`, one line with file, line and key and never a value, when the file is missing
    or unreadable, holds JSON, or a line is no setting, repeats one, names an unset variable or a
    refused setting; also when `bootstrap.servers` is missing.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; -f names the config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {type(error).__name__}") from None
    if text.lstrip().startswith("{"):
        raise ConfigError(f"{path}:1: this is JSON, expected key = value lines for -c kafka")

    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}:{number}"
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key or " " in key:
            raise ConfigError(f"{where}: expected key = value")
        if key in values:
            raise ConfigError(f"{where}: {key} is set twice, first on line {lines[key]}")
        if key in _LOADS_CODE:
            raise ConfigError(f"{where}: {key} is refused: it loads code or runs a command")
        value = _substitute(value, f"{where}: {key}")
        if key in _FIXED and value.lower() != _FIXED[key]:
            raise ConfigError(f"{where}: {key} must be {_FIXED[key]}: the delivery guarantee rests on it")
        values[key] = value
        lines[key] = number
    if not values.get("bootstrap.servers"):
        raise ConfigError(f"{path}: bootstrap.servers is missing, expected host:port of a broker")
    return Settings(path, values, lines)


def _substitute(value: str, where: str) -> str:
    def variable(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise ConfigError(f"{where} uses ${{{found[1]}}}, which is not set in the environment") from None

    return _VARIABLE.sub(variable, value)
