"""The lines of `kafka.config`: which of them are settings, and what of a line is the value.

Files come from other programs too: a byte-order mark, quotation marks, a comment behind a value, and Java's `\\`
at the end of a line do no harm. A secret is never guessed at: what may be part of it, or not, is an error.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator

from imagebus.errors import ConfigError
from imagebus.transports.kafka import foreign

# As librdkafka writes them. Anything else before an equals sign may be part of a secret.
_KEY = re.compile(r"[a-z][a-z0-9._]*")
_LOOKS_LIKE_A_SETTING = re.compile(r"\s*[a-z]+(\.[a-z]+)+\s*=")
_OTHER_COMMENT = ("!", ";", "//", "--")
_COLON = re.compile(r"""["']?[A-Za-z][\w.-]*["']?\s*:""")

_COMMENT = re.compile(r"\s#")
_CLOSING = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "„": "“", "«": "»"}  # noqa: RUF001  # people paste them
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?")
_OF_SPRING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):(?![-/]).*")
_OF_A_SHELL = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_PLACEHOLDER = re.compile(r"\{\{.*\}\}|<[^<>]*>")
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Zl", "Zp"})  # Unicode's categories of what no font shows
# Lists, in which a comma at the end means nothing.
_LISTS = frozenset({"bootstrap.servers", "debug", "topic.blacklist"})


def settings_in(text: str, path: str, is_secret: Callable[[str], bool]) -> Iterator[tuple[int, str, str]]:
    """Number, key and unread value of each line of `text` that is a setting; raises `ConfigError` at one that is none.

    A `\\` at the end continues a value on the next line, except that of a secret, which may end with one.
    """
    rest = enumerate(text.splitlines(), start=1)
    previous = ""
    for number, line in rest:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}:{number}"
        typed, equals, value = line.partition("=")
        key = foreign.translated(typed.strip())
        if not equals or not _KEY.fullmatch(key):
            raise ConfigError(f"{where}: expected key = value{_why_no_setting(line.strip(), previous)}")
        while value.rstrip().endswith("\\") and not is_secret(key):
            _, more = next(rest, (0, ""))
            if _LOOKS_LIKE_A_SETTING.match(more):
                raise ConfigError(
                    f"{where}: {key} ends with a backslash, which would join the next setting to it"
                )
            value = value.rstrip().removesuffix("\\") + more.lstrip()
        previous = key
        yield number, key, value


def _why_no_setting(line: str, previous: str) -> str:
    """What is wrong with a line; never with a piece of it, which may be of a secret."""
    typed, equals, _ = line.partition("=")
    if line.startswith(_OTHER_COMMENT):
        return "; a comment begins with #"
    if line.startswith("[") and line.endswith("]"):
        return "; this file has no sections: delete the line"
    if previous.endswith(".pem"):
        file = previous.replace(".pem", ".location")
        return f"; {previous} is one line, with \\n in place of line ends, or {file} names a file"
    if _COLON.match(line):
        typed, equals = line.partition(":")[0], ":"
    advice = foreign.instead(typed) if equals else None
    colon = ", with = in place of :" if equals == ":" else ""
    return f"{colon}; for this key, {advice}" if advice else colon


def read_value(raw: str, key: str, where: str, *, secret: bool) -> str:
    """The value that a line means, as `raw` stands behind its `=`; `where` is its file:line, for messages.

    Raises `ConfigError`, without a piece of the value, for what has two meanings or none.
    """
    of = f"{where}: {key}"
    value = _without_comment(raw, of, secret)
    if value.endswith((",", ";")) and not secret:
        if key not in _LISTS:
            raise ConfigError(
                f"{of} ends with a {'comma' if value.endswith(',') else 'semicolon'}: delete it"
            )
        value = value.rstrip(",; ")
    value = _unquoted(value, of, secret)
    named = _OF_A_SHELL.fullmatch(value)
    if named and named[1] in os.environ:
        raise ConfigError(f"{of} names an environment variable: write ${{{named[1]}}}")
    value = substitute(value, of)
    if not secret:
        value = _unquoted(value, of, secret)  # Docker's --env-file keeps quotation marks
        if hidden := next((each for each in value if unicodedata.category(each) in _HIDDEN), ""):
            raise ConfigError(f"{of} has a character that cannot be seen, U+{ord(hidden):04X}")
    return value.replace("\\n", "\n") if key.endswith(".pem") else value


def is_literal(raw: str) -> bool:
    """Whether something of the value stands in the file, rather than in the environment."""
    variables = _VARIABLE.findall(raw)
    return bool(raw.strip()) and (
        not variables or any(":-" in each and each[-2:] != ":-" for each in variables)
    )


def substitute(value: str, of: str) -> str:
    """`value` with each `${NAME}` and `${NAME:-default}` from the environment; `of` is the key with its place."""
    if _PLACEHOLDER.fullmatch(value):
        raise ConfigError(f"{of} is still a placeholder: write the value in its place")

    def variable(found: re.Match[str]) -> str:
        named = _NAMED.fullmatch(found[1])
        if not named:
            spring = _OF_SPRING.fullmatch(found[1])
            raise ConfigError(
                f"{of}: a default is written ${{{spring[1]}:-…}}, with a minus sign"
                if spring and spring[1] not in ("env", "file")
                else f"{of} has a ${{…}} that names no environment variable: expected ${{NAME}} or ${{NAME:-default}}"
            )
        name, default = named[1], named[2]
        known = os.environ.get(name)
        if known is None and default is None:
            raise ConfigError(f"{of} uses ${{{name}}}, which is not set in the environment")
        # A Kubernetes secret made with `echo` has a line end that nobody means.
        return (known or "").rstrip("\r\n") or default or ""

    return _VARIABLE.sub(variable, value)


def _only_variable(text: str) -> bool:
    return bool(_VARIABLE.fullmatch(text))


def _without_comment(raw: str, of: str, secret: bool) -> str:
    value = raw.strip()
    closing = _CLOSING.get(value[:1])
    quoted = value.find(closing, 1) + 1 if closing else 0  # behind the closing one; 0 if there is none
    start = raw.find(value) + quoted if value else 0
    comment = _COMMENT.search(raw, start if quoted else 0)
    if not comment:
        return value
    before = raw[: comment.start()].strip()
    if not secret or _only_variable(before.strip("\"'")):
        return before
    if not before and value[1:2].strip():  # a secret that begins with #
        return value
    raise ConfigError(
        f"{of} has a # behind a space: comments of a secret stand on lines of their own; "
        "write ${NAME} if it belongs to the secret"
    )


def _unquoted(value: str, of: str, secret: bool) -> str:
    closing = _CLOSING.get(value[:1])
    if closing is None:
        return value
    if len(value) > 1 and value.endswith(closing):
        inside = value[1:-1].strip()
        if secret and not _only_variable(inside):
            raise ConfigError(
                f"{of} stands in quotation marks: delete them, or write ${{NAME}} if they belong to it"
            )
        return inside
    if secret:
        return value
    raise ConfigError(f"{of} begins with a quotation mark that is not closed")
