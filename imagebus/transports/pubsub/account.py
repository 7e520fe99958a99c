"""Reading the JSON that Google issues with the key of a service account.

Every mistake is reported before anything connects, and never with a part of the key. The login itself is in
`login.py`, which needs google-auth; this module imports that only where it calls it.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import logging
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebus.errors import ConfigError

if TYPE_CHECKING:
    from google.auth.crypt import RSASigner

log = logging.getLogger(__name__)

GOOGLE_UNIVERSE = "googleapis.com"  # a file without `universe_domain` means this one
MAX_FILE_BYTES = 64 * 1024  # of the file; Google's are 2.4 kB
MIN_KEY_BITS = 2048  # RFC 7518 for RS256, and what Google issues

_EXPECTED = "expected a service account's JSON key for Pub/Sub"
# What has to be in the file, in Google's order.
_FIELDS = (
    "type",
    "project_id",
    "private_key_id",
    "private_key",
    "client_email",
    "client_id",
    "auth_uri",
    "token_uri",
)
_OPTIONAL = ("universe_domain", "auth_provider_x509_cert_url", "client_x509_cert_url")
# Types of other files that Google's tools write: safe to show, while anything else could be a secret.
_OTHER_TYPES = frozenset(
    {
        "authorized_user",
        "external_account",
        "external_account_authorized_user",
        "gdch_service_account",
        "impersonated_service_account",
    }
)
_SETTING = re.compile(r"[A-Za-z][\w.]*\s*=")
# 6 to 30 characters, in old domain-scoped projects after the domain.
_PROJECT = re.compile(r"(?:[a-z0-9.-]{1,253}:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+")
_ADDRESS = re.compile(rf"[A-Za-z0-9._%+-]{{1,64}}@{_DOMAIN.pattern}")
# Only what every reader of URLs takes apart alike.
_URL = re.compile(
    r"(https?)://((?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}|\[::1\])(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~/%-]*)?"
)


@dataclass(frozen=True)
class ServiceAccount:
    """A service account as in its file. `signer` has the private key, and neither it nor `repr` shows it."""

    path: Path
    project_id: str
    client_email: str
    token_uri: str
    universe_domain: str = GOOGLE_UNIVERSE
    signer: RSASigner = field(kw_only=True, repr=False, compare=False)


def need_google() -> None:
    """Raise `ConfigError` where the extra `google` is not installed."""
    for module in ("google.auth", "google.pubsub_v1", "grpc"):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # not even a package `google`
            found = None
        if found is None:
            raise ConfigError(
                "Pub/Sub needs google-cloud-pubsub: python3 tools/install.py google, "
                "poetry install --with google, or the wheel with its extra [google]"
            )


def read_service_account(path: str | Path) -> ServiceAccount:
    """Read a service account's JSON, and check all of it, the key included.

    Raises `ConfigError`, one line with file and field and never a value, when the file is missing,
    unreadable, too large or no JSON object, a field is missing or not of its form, or the key
    cannot sign; also where google-auth is not installed. Unknown fields are ignored. Warns of a file that
    others can read.
    """
    path = Path(path)
    text, readable_by_others = _read(path)
    values = _parse(path, text)
    _check(path, values)
    signer = _signer(path, values["private_key"], values["private_key_id"])
    if readable_by_others:
        log.warning("%s: others on this machine can read the private key: chmod 600 %s", path, path)
    return ServiceAccount(
        path,
        project_id=values["project_id"],
        client_email=values["client_email"],
        token_uri=values["token_uri"],
        universe_domain=values.get("universe_domain", GOOGLE_UNIVERSE),
        signer=signer,
    )


# --- the file ------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[str, bool]:
    """The text, and whether others than the owner can read it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
        text = content[:MAX_FILE_BYTES].decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, {_EXPECTED}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {type(error).__name__}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES // 1024} KiB, {_EXPECTED}")
    return text, bool(mode & (stat.S_IRGRP | stat.S_IROTH))


def _parse(path: Path, text: str) -> dict[str, Any]:
    """The JSON object in `text`."""

    def without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                which = key if key in (*_FIELDS, *_OPTIONAL) else "a key"
                raise ConfigError(f"{path}: {which} stands there twice")
            seen.add(key)
        return dict(pairs)

    try:
        values = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits are a ValueError too
        for number, line in enumerate(text.splitlines(), start=1):
            if _SETTING.match(line.strip()):
                raise ConfigError(f"{path}:{number}: these are key = value lines, {_EXPECTED}") from None
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else path
        raise ConfigError(f"{where}: this is not JSON, {_EXPECTED}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: this is not a JSON object, {_EXPECTED}")
    return values


def _check(path: Path, values: dict[str, Any]) -> None:
    """Raise `ConfigError` for the first field that is not what it has to be; the key comes later."""

    def wrong(name: str, what: str) -> ConfigError:
        return ConfigError(f"{path}: {name} {what}")

    for name in (*_FIELDS, *_OPTIONAL):
        if name not in values:
            if name in _OPTIONAL:
                continue
            raise wrong(name, f"is missing, {_EXPECTED}")
        value = values[name]
        if not isinstance(value, str):
            raise wrong(name, "has to be text in quotes")
        if not value.strip():
            raise wrong(name, "is empty")
        if name == "type" and value != "service_account":
            which = f"is {value}" if value in _OTHER_TYPES else "is another one"
            raise wrong(name, f"{which}, expected service_account: a key that was made for a service account")
    if not _PROJECT.fullmatch(values["project_id"]):
        raise wrong("project_id", "is no project's id: 6 to 30 of a-z, 0-9 and -, and a letter first")
    if not _ADDRESS.fullmatch(values["client_email"]):
        raise wrong("client_email", "is not an address, expected NAME@PROJECT.iam.gserviceaccount.com")
    if not _DOMAIN.fullmatch(values.get("universe_domain", GOOGLE_UNIVERSE)):
        raise wrong("universe_domain", f"is not a domain, expected {GOOGLE_UNIVERSE} or another one")
    trouble = _trouble_with_url(values["token_uri"])
    if trouble:
        raise wrong("token_uri", trouble)


def _trouble_with_url(url: str) -> str | None:
    found = _URL.fullmatch(url)
    if not found:
        return "is not an https address that can be asked"
    scheme, host, port = found.groups()
    if port is not None and not 0 < int(port) < 65536:
        return "has a port that is not between 1 and 65535"
    if scheme == "http" and not is_loopback(host):
        return "has to be https: everybody on the way could read the login"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine itself."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _signer(path: Path, pem: str, key_id: str) -> RSASigner:
    """What signs with the private key. Says what is wrong with a key in words of its own: nothing is quoted."""
    need_google()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from google.auth.crypt import RSASigner

    if "-----BEGIN " not in pem:
        raise ConfigError(f"{path}: private_key is not a PEM key, expected -----BEGIN PRIVATE KEY-----")
    if "BEGIN ENCRYPTED" in pem or "4,ENCRYPTED" in pem:
        raise ConfigError(f"{path}: private_key is encrypted, expected one without a passphrase")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: private_key is broken or cut short, download it again") from None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError(f"{path}: private_key is not an RSA key")
    if key.key_size < MIN_KEY_BITS:
        raise ConfigError(f"{path}: private_key is an RSA key of fewer than {MIN_KEY_BITS} bits")
    return RSASigner(key, key_id)
