"""Java's login line, `sasl.jaas.config`: consoles export user and password in it."""

from __future__ import annotations

import re

from imagebus.errors import ConfigError
from imagebus.transports.kafka import foreign

KEY = "sasl.jaas.config"
_WITH_PASSWORD = ("PlainLoginModule", "ScramLoginModule")
_LOGIN = re.compile(
    r"([\w.$]+)(?:\s+(?:required|requisite|sufficient|optional)\b)?(.*)", re.IGNORECASE | re.DOTALL
)
_OPTION = re.compile(r"""\s*([\w.]+)\s*=\s*("[^"]*"|'[^']*'|[^\s;"']+)""")
_END = re.compile(r"\s*;?\s*(#.*)?")
_ESCAPED = re.compile(r"""\\([=:"' ])""")  # as Java's property files have them


def user_and_password(line: str, where: str) -> tuple[str, str]:
    """The two as the line has them, variables included; `where` is its file:line, for messages.

    Raises `ConfigError`, without a piece of the line, for a login that is not by password, or cannot be read.
    """
    of = f"{where}: {KEY}"
    login = _LOGIN.fullmatch(_ESCAPED.sub(r"\1", line.strip()))
    if login is None:
        raise ConfigError(f"{of} is not a login of Java's: write sasl.username and sasl.password")
    module = login[1].rpartition(".")[2]
    if module == "Krb5LoginModule":
        raise ConfigError(
            f"{of} is not a setting here: write sasl.kerberos.principal and sasl.kerberos.keytab"
        )
    if module not in _WITH_PASSWORD:
        raise ConfigError(f"{of} is not a setting here: {foreign.callback_advice(login[1])}")
    options: dict[str, str] = {}
    rest = login[2]
    while option := _OPTION.match(rest):
        options[option[1]] = option[2]
        rest = rest[option.end() :]
    user, password = options.get("username", ""), options.get("password", "")
    odd = "tokenauth" in options or "\\" in user + password  # a delegation token, a character by its number
    if odd or not user or not password or not _END.fullmatch(rest):
        raise ConfigError(f"{of} cannot be read for certain: write sasl.username and sasl.password")
    return _bare(user), _bare(password)


def _bare(text: str) -> str:
    return text[1:-1] if text[0] in "\"'" else text
