"""Reading `kafka.config`: librdkafka's `key = value` lines, with the place of each key remembered.

    # a comment
    bootstrap.servers = localhost:9092
    sasl.password = ${KAFKA_PASSWORD}

Spaces around either side are dropped, `=` may stand in values, `${NAME}` is taken from the
environment. Any librdkafka setting passes through, and librdkafka judges it; what would run code or
break the delivery promise is refused here.

lines.py has the syntax, foreign.py and jaas.py what other clients write, checks.py the whole.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from imagebus.errors import ConfigError
from imagebus.transports.kafka import checks, foreign, jaas, lines
from imagebus.transports.kafka.entries import SECRETS, Settings

__all__ = ["Settings", "read_settings"]

log = logging.getLogger(__name__)

# Settings that load a library into the process or run a shell command.
_LOADS_CODE = frozenset(
    {"plugin.library.paths", "sasl.kerberos.kinit.cmd", "ssl.engine.location", "ssl.providers"}
)
# What librdkafka puts into kinit's command line, which a shell reads, and the characters allowed there.
_IN_A_COMMAND = frozenset({"sasl.kerberos.keytab", "sasl.kerberos.principal"})
_HARMLESS = re.compile(r"[\w@%+=:,./-]*")
# The delivery guarantee rests on these settings: only these values keep it.
_FIXED = {
    "delivery.report.only.error": "false",
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.idempotence": "true",
    "enable.partition.eof": "false",  # the end of a partition would come in place of a record
    "group.protocol.type": "consumer",
    "isolation.level": "read_committed",
    "offset.store.method": "broker",  # the other one writes a file
    "partition.assignment.strategy": "cooperative-sticky",
}
_OBJECT = "delivery.report.only.error"  # confluent-kafka takes a bool of Python's alone, and False anyway


def read_settings(path: str | Path) -> Settings:
    """Read a file of `key = value` lines.

    Raises `ConfigError`, one line with file, line and key and never a value, when the file is missing
    or unreadable, holds JSON, or a line is no setting, repeats one, names an unset variable, a refused
    setting or one of another client's; also when `bootstrap.servers` is missing, or the settings cannot
    work together.
    """
    path = Path(path)
    text, readable_by_all = _read(path)
    values: dict[str, str] = {}
    places: dict[str, int] = {}
    unused: list[str] = []
    for number, key, raw in lines.settings_in(text, str(path), SECRETS.__contains__):
        where = f"{path}:{number}"
        if foreign.is_unused(key):
            unused.append(key)
        elif key != jaas.KEY:
            _check_key(key, where, raw)
        login = jaas.user_and_password(raw, where) if key == jaas.KEY else None
        pairs = zip(("sasl.username", "sasl.password"), login, strict=True) if login else [(key, raw)]
        for each, part in pairs:
            if each in SECRETS and readable_by_all and lines.is_literal(part):
                raise ConfigError(
                    f"{where}: {each} stands in a file that everybody can read: {_how_to_hide(path)}, "
                    "or write ${NAME}"
                )
            if each in values:
                raise ConfigError(f"{where}: {each} is set twice, first on line {places[each]}")
            if not foreign.is_unused(each):
                value = _value(each, part, where, plain=login is not None)
                if each != _OBJECT:
                    values[each] = value
                    places[each] = number
    if unused:
        log.info("%s: no use here for %s", path, ", ".join(unused))
    if not values.get("bootstrap.servers"):
        raise ConfigError(_why_no_servers(path, values, places))
    settings = Settings(path, values, places)
    checks.check(settings)
    return settings


def _read(path: Path) -> tuple[str, bool]:
    """The text of a file, and whether everybody can read it."""
    try:
        content = path.read_bytes()
        readable_by_all = bool(path.stat().st_mode & stat.S_IROTH)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: cannot be read: it is a folder, expected a file") from None
    except PermissionError:
        raise ConfigError(
            f"{path}: cannot be read by uid {os.geteuid()}; a Kubernetes volume needs fsGroup and defaultMode: 0440"
        ) from None
    except UnicodeDecodeError:
        utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        raise ConfigError(
            f"{path}: cannot be read as text: expected UTF-8{', not UTF-16' if utf_16 else ''}"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {type(error).__name__}") from None
    if text.lstrip().startswith("{"):
        raise ConfigError(f"{path}:1: this is JSON, expected key = value lines for Kafka")
    return text, readable_by_all


def _how_to_hide(path: Path) -> str:
    """What takes a file from the others' eyes; chmod cannot where it is on a volume that is mounted for reading."""
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY or (path.parent / "..data").is_symlink()
    return (
        "mount the volume with defaultMode: 0400, or 0440 with fsGroup" if read_only else f"chmod o-r {path}"
    )


def _check_key(key: str, where: str, raw: str) -> None:
    """Raise `ConfigError` for a setting that is refused, set elsewhere, or another client's."""
    if key in _LOADS_CODE:
        raise ConfigError(f"{where}: {key} is refused: it loads code or runs a command")
    if key in foreign.ELSEWHERE:
        raise ConfigError(f"{where}: {key} is not set here but with {foreign.ELSEWHERE[key]}")
    advice = foreign.ADVICE.get(key)
    if key.endswith(".callback.handler.class"):
        advice = foreign.callback_advice(raw.strip())
    elif not advice and "_" in key and not key.endswith("_cb"):
        advice = foreign.instead(key)
    if advice:
        raise ConfigError(f"{where}: {key} is not a setting here: {advice}")


def _value(key: str, raw: str, where: str, *, plain: bool) -> str:
    """The value that `raw` means, variables replaced; `plain` if nothing but variables is to be read in it."""
    value = (
        lines.substitute(raw, f"{where}: {key}")
        if plain
        else lines.read_value(raw, key, where, secret=key in SECRETS)
    )
    if key in _IN_A_COMMAND and not _HARMLESS.fullmatch(value):
        raise ConfigError(f"{where}: {key} has characters that a shell would act on")
    if key in _FIXED and value.lower() != _FIXED[key]:
        raise ConfigError(f"{where}: {key} must be {_FIXED[key]}: the delivery guarantee rests on it")
    return value


def _why_no_servers(path: Path, values: Mapping[str, str], places: Mapping[str, int]) -> str:
    """A line for a file without an address, which may stand there under another client's name."""
    for key in values:
        if foreign.instead(key) == "write bootstrap.servers" != f"write {key}":
            return f"{path}:{places[key]}: {key} is not a setting here: write bootstrap.servers"
    return f"{path}: bootstrap.servers is missing, expected host:port of a broker"
