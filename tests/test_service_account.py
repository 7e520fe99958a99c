"""The JSON of a service account: read and checked, and a token got with it, or one line that says why not."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagebus.errors import ConfigError, ConnectionFailed
from imagebus.transports.pubsub import login
from imagebus.transports.pubsub.account import (
    MAX_FILE_BYTES,
    need_google,
    read_service_account,
)
from imagebus.transports.pubsub.login import fetch_token, google_credentials

from .programs import ROOT
from .security.certificates import Authority
from .token_server import (
    AUDIENCE,
    EMAIL,
    KEY_ID,
    TOKEN,
    TokenServer,
    account_info,
    new_key,
    pem,
    said,
    write_account,
)

Answer = tuple[int, Mapping[str, str], bytes]
EXPECTED = "expected a service account's JSON key for Pub/Sub"


def secrets(info: Mapping[str, object]) -> list[str]:
    """The key in pieces, as short as a piece can be without standing somewhere by chance, and its id."""
    text = str(info.get("private_key", ""))
    body = "".join(text.split("-----")[2].split()) if text.count("-----") > 3 else "".join(text.split())
    pieces = [body[i : i + 16] for i in range(0, max(len(body) - 15, 0), 8)]
    return [*pieces, KEY_ID, TOKEN]


def problem(path: Path, info: Mapping[str, object] | None = None) -> str:
    """What is wrong with a file, in one line that names it and shows nothing of the key."""
    with pytest.raises(ConfigError) as refused:
        read_service_account(path)
    message = str(refused.value)
    shown = "".join(traceback.format_exception(refused.value))
    assert message.startswith(f"{path}:"), message
    assert "\n" not in message
    assert message.isprintable()
    assert not [secret for secret in secrets(info or account_info()) if secret in shown]
    return message.removeprefix(f"{path}:").strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "google.json"


# --- reading -------------------------------------------------------------------------------------


def test_an_account_is_read_as_google_issues_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    account = read_service_account(write_account(path))

    assert account.path == path
    assert account.project_id == "project-of-a-test"
    assert account.client_email == EMAIL
    assert account.token_uri == AUDIENCE
    assert account.universe_domain == "googleapis.com"
    assert caplog.messages == []


def test_what_newer_files_have_may_be_missing_and_more_may_be_there(path: Path) -> None:
    write_account(
        path,
        universe_domain=None,
        auth_provider_x509_cert_url=None,
        client_x509_cert_url=None,
        something_new={"a": [1]},
    )

    assert read_service_account(path).universe_domain == "googleapis.com"


@pytest.mark.parametrize("project", ["abcdef", "a-1-b2", "example.com:old-project", "a" * 30])
def test_each_form_of_a_projects_id_is_taken(path: Path, project: str) -> None:
    assert read_service_account(write_account(path, project_id=project)).project_id == project


@pytest.mark.parametrize(
    "uri",
    [
        "https://oauth2.googleapis.com/token",
        "https://oauth2.example:8443/token",
        "http://localhost:8080/token",
        "http://127.0.0.1/",
        "http://[::1]:80/token",
    ],
)
def test_a_token_server_is_asked_over_https_or_on_this_machine(path: Path, uri: str) -> None:
    assert read_service_account(write_account(path, token_uri=uri)).token_uri == uri


def test_a_byte_order_mark_does_no_harm(path: Path) -> None:
    path.touch(0o600)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(account_info()).encode())

    assert read_service_account(path).client_email == EMAIL


def test_the_key_is_in_no_repr(path: Path) -> None:
    account = read_service_account(write_account(path))

    shown = f"{account!r} {account} {account.signer!r} {google_credentials(account)!r}"

    assert not [secret for secret in secrets(account_info()) if secret in shown]


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True), (0o400, False)])
def test_a_file_that_others_can_read_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    write_account(path).chmod(mode)

    read_service_account(path)

    assert caplog.messages == warned * [
        f"{path}: others on this machine can read the private key: chmod 600 {path}"
    ]


def test_the_shipped_example_has_each_field_and_no_key() -> None:
    example_file = ROOT / "google.json.example"

    assert json.loads(example_file.read_text()).keys() == account_info().keys()
    with pytest.raises(ConfigError, match=r"google\.json\.example: private_key is broken or cut short"):
        read_service_account(example_file)


# --- bad input: the file -------------------------------------------------------------------------


def test_a_missing_file_is_named(path: Path) -> None:
    assert problem(path) == f"no such file, {EXPECTED}"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert problem(tmp_path) == "cannot be read as text: IsADirectoryError"


def test_a_file_without_the_right_to_read_it_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root can read whatever it likes

    assert problem(path) == "cannot be read as text: PermissionError"


@pytest.mark.parametrize("content", [b"\xff\xfe{\x00}\x00", b'{"type": "\xe9"}'])
def test_a_file_in_another_encoding_is_not_text(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert problem(path) == "cannot be read as text: UnicodeDecodeError"


def test_a_name_that_no_file_can_have_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as text: ValueError"):
        read_service_account("google\0.json")


def test_a_large_file_is_not_parsed(path: Path) -> None:
    path.write_text(json.dumps(account_info(padding=" " * MAX_FILE_BYTES)))

    assert problem(path) == f"larger than 64 KiB, {EXPECTED}"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert problem(Path("/dev/zero")) == f"larger than 64 KiB, {EXPECTED}"


@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("\n\n{", 3), ("{'type': 'service_account'}", 1), ("\0", 1), ('{\n"type": 1,\n}', 3)],
)
def test_what_is_not_json_is_said_with_its_line(path: Path, text: str, line: int) -> None:
    path.write_text(text)

    assert problem(path) == f"{line}: this is not JSON, {EXPECTED}"


@pytest.mark.parametrize("text", ["[" * 60_000, '{"a":' * 10_000, "9" * 10_000])
def test_json_that_python_gives_up_on_is_not_json(path: Path, text: str) -> None:
    path.write_text(text)

    assert problem(path) == f"this is not JSON, {EXPECTED}"


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_not_json(path: Path, cut: float) -> None:
    text = json.dumps(account_info(), indent=2)
    path.write_text(text[: int(cut * len(text))])

    assert f"this is not JSON, {EXPECTED}" in problem(path)


def test_a_kafka_config_is_recognised(path: Path) -> None:
    path.write_text(f"# Kafka\n\nbootstrap.servers = localhost:9092\nsasl.password={KEY_ID}\n")

    assert problem(path) == f"3: these are key = value lines, {EXPECTED}"


@pytest.mark.parametrize("text", ["[]", "null", '"service_account"', "1", "[{}]"])
def test_json_that_is_no_object_is_said(path: Path, text: str) -> None:
    path.write_text(text)

    assert problem(path) == f"this is not a JSON object, {EXPECTED}"


@pytest.mark.parametrize(
    ("extra", "which"),
    [('"private_key": "x"', "private_key"), ('"x": 1, "x": 2', "a key"), ('"y": {"z": 1, "z": 2}', "a key")],
)
def test_a_key_that_stands_twice_is_refused(path: Path, extra: str, which: str) -> None:
    path.write_text(json.dumps(account_info()).removesuffix("}") + f", {extra}}}")

    assert problem(path) == f"{which} stands there twice"


# --- bad input: the fields -----------------------------------------------------------------------

REQUIRED = [
    "type",
    "project_id",
    "private_key_id",
    "private_key",
    "client_email",
    "client_id",
    "auth_uri",
    "token_uri",
]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field_is_named(path: Path, name: str) -> None:
    write_account(path, **{name: None})

    assert problem(path) == f"{name} is missing, {EXPECTED}"


@pytest.mark.parametrize("name", [*REQUIRED, "universe_domain"])
@pytest.mark.parametrize("value", [1, True, [KEY_ID], {KEY_ID: KEY_ID}], ids=repr)
def test_a_field_of_the_wrong_type_is_named(path: Path, name: str, value: object) -> None:
    write_account(path, **{name: value})

    assert problem(path) == f"{name} has to be text in quotes"


@pytest.mark.parametrize("name", REQUIRED)
def test_a_null_is_of_the_wrong_type(path: Path, name: str) -> None:
    path.write_text(json.dumps({**account_info(), name: None}))

    assert problem(path) == f"{name} has to be text in quotes"


@pytest.mark.parametrize("name", [*REQUIRED, "universe_domain"])
@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_field_is_named(path: Path, name: str, value: str) -> None:
    write_account(path, **{name: value})

    assert problem(path) == f"{name} is empty"


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("authorized_user", "authorized_user"),
        ("external_account", "external_account"),
        ("impersonated_service_account", "impersonated_service_account"),
        (KEY_ID, "another one"),
        ("Service_Account", "another one"),
    ],
)
def test_a_file_of_another_type_is_refused(path: Path, kind: str, shown: str) -> None:
    write_account(path, type=kind)

    expected = "expected service_account: a key that was made for a service account"
    assert problem(path) == f"type is {shown}, {expected}"


def test_an_oauth_clients_file_is_refused(path: Path) -> None:
    path.write_text(json.dumps({"installed": {"client_id": "x", "client_secret": KEY_ID}}))

    assert problem(path) == f"type is missing, {EXPECTED}"


@pytest.mark.parametrize(
    "project",
    [
        "short",
        "a" * 31,
        "1-starts-so",
        "ends-so-",
        "Upper-case",
        "a b c d e f",
        "../../etc",
        "projects/p",
        "ä" * 8,
    ],
)
def test_what_is_no_projects_id_is_refused(path: Path, project: str) -> None:
    write_account(path, project_id=project)

    assert problem(path) == "project_id is no project's id: 6 to 30 of a-z, 0-9 and -, and a letter first"


@pytest.mark.parametrize(
    "address", ["tester", "a@b", "a b@example.com", "a@example.com\n", "@example.com", "é@example.com"]
)
def test_what_is_no_address_is_refused(path: Path, address: str) -> None:
    write_account(path, client_email=address)

    assert problem(path) == "client_email is not an address, expected NAME@PROJECT.iam.gserviceaccount.com"


@pytest.mark.parametrize("domain", ["localhost", "https://googleapis.com", "a..b", "googleapis.com/", "X.Y"])
def test_what_is_no_universe_is_refused(path: Path, domain: str) -> None:
    write_account(path, universe_domain=domain)

    assert problem(path) == "universe_domain is not a domain, expected googleapis.com or another one"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("oauth2.googleapis.com/token", "is not an https address that can be asked"),
        ("ftp://oauth2.googleapis.com/token", "is not an https address that can be asked"),
        ("file:///etc/passwd", "is not an https address that can be asked"),
        ("https://", "is not an https address that can be asked"),
        ("https:///token", "is not an https address that can be asked"),
        ("https://user:password@example.com/", "is not an https address that can be asked"),
        ("https://127.0.0.1\\@example.com/", "is not an https address that can be asked"),
        ("https://example.com/ token", "is not an https address that can be asked"),
        ("https://example.com/\r\nHost: a", "is not an https address that can be asked"),
        ("https://example..com/", "is not an https address that can be asked"),
        ("https://example.com:70000/", "has a port that is not between 1 and 65535"),
        ("https://example.com:0/", "has a port that is not between 1 and 65535"),
        ("http://oauth2.googleapis.com/token", "has to be https: everybody on the way could read the login"),
        ("http://127.0.0.1.example.com/", "has to be https: everybody on the way could read the login"),
        ("http://localhost.example.com/", "has to be https: everybody on the way could read the login"),
        ("http://0.0.0.0/", "has to be https: everybody on the way could read the login"),
    ],
)
def test_a_token_server_that_cannot_be_asked_safely_is_refused(path: Path, uri: str, reason: str) -> None:
    write_account(path, token_uri=uri)

    assert problem(path) == f"token_uri {reason}"


# --- bad input: the key --------------------------------------------------------------------------

BROKEN = "is broken or cut short, download it again"


def encrypted(form: PrivateFormat) -> str:
    return new_key().private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")).decode()


KEYS: dict[str, tuple[Callable[[], str], str]] = {
    "no PEM": (lambda: KEY_ID, "is not a PEM key, expected -----BEGIN PRIVATE KEY-----"),
    "the PEM's inside only": (
        lambda: "".join(pem(new_key()).splitlines()[1:-1]),
        "is not a PEM key, expected -----BEGIN PRIVATE KEY-----",
    ),
    "cut short": (lambda: pem(new_key())[:800], BROKEN),
    "without its end": (lambda: "\n".join(pem(new_key()).splitlines()[:-1]), BROKEN),
    "without a line": (
        lambda: "\n".join(pem(new_key()).splitlines()[:9] + pem(new_key()).splitlines()[10:]),
        BROKEN,
    ),
    "with one letter changed": (lambda: pem(new_key()).replace(pem(new_key())[700:702], "!?"), BROKEN),
    "escaped twice": (lambda: pem(new_key()).replace("\n", "\\n"), BROKEN),
    "with half a character": (lambda: pem(new_key()).replace("\n", "\ud800", 1), BROKEN),
    "a public key": (
        lambda: "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n",
        BROKEN,
    ),
    "encrypted": (lambda: encrypted(PrivateFormat.PKCS8), "is encrypted, expected one without a passphrase"),
    "encrypted as OpenSSL once did": (
        lambda: encrypted(PrivateFormat.TraditionalOpenSSL),
        "is encrypted, expected one without a passphrase",
    ),
    "of another kind": (lambda: pem(ec.generate_private_key(ec.SECP256R1())), "is not an RSA key"),
    "too small": (lambda: pem(new_key("small", 1024)), "is an RSA key of fewer than 2048 bits"),
}


@pytest.mark.parametrize(("made", "reason"), KEYS.values(), ids=KEYS)
def test_a_key_that_cannot_sign_is_refused(path: Path, made: Callable[[], str], reason: str) -> None:
    key = made()
    write_account(path, private_key=key)

    assert problem(path, {"private_key": key}) == f"private_key {reason}"


WHAT_TO_INSTALL = (
    "Pub/Sub needs google-cloud-pubsub: python3 tools/install.py google, "
    "poetry install --with google, or the wheel with its extra [google]"
)


def test_without_google_auth_it_is_said_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)

    with pytest.raises(ConfigError) as refused:
        need_google()
    assert str(refused.value) == WHAT_TO_INSTALL
    with pytest.raises(ConfigError) as refused:
        read_service_account(write_account(path))
    assert str(refused.value) == WHAT_TO_INSTALL


def test_without_googles_client_connecting_ends_with_that_line() -> None:
    code = "import sys; sys.modules['grpc'] = None; from imagebus import connect; connect('google', 'google.json')"

    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert ended.stderr.splitlines()[-1].endswith(f"ConfigError: {WHAT_TO_INSTALL}")


def test_reading_the_module_imports_nothing_of_googles() -> None:
    code = "import imagebus.transports.pubsub.account, sys; print(*sys.modules)"

    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    packages = {module.partition(".")[0] for module in printed.stdout.split()}
    assert "imagebus" in packages
    assert not packages & {"google", "grpc", "requests", "cryptography"}


# --- bad input: anything -------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
CHANGED = st.dictionaries(st.sampled_from([*account_info(), "extra"]), ANYTHING, min_size=1, max_size=3)
NEAR = st.dictionaries(
    st.sampled_from([*account_info()]),
    st.tuples(st.integers(0, 60), st.text(max_size=3), st.integers(0, 60)),
    min_size=1,
    max_size=2,
)


def account_or_one_line(path: Path, content: bytes, info: Mapping[str, object]) -> None:
    path.write_bytes(content)
    try:
        account = read_service_account(path)
    except ConfigError:
        problem(path, info)
    else:
        shown = repr(account)
        assert not [secret for secret in secrets(info) if secret in shown]


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("accounts") / "google.json"
    file.touch(0o600)
    return file


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
@example(b"")
@example(b'{"type":"service_account"}')
def test_arbitrary_bytes_give_one_line(anywhere: Path, content: bytes) -> None:
    account_or_one_line(anywhere, content, {})


@given(ANYTHING)
def test_arbitrary_json_gives_one_line(anywhere: Path, value: object) -> None:
    account_or_one_line(anywhere, json.dumps(value).encode(), {})


@given(CHANGED)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_an_account_with_arbitrary_fields_gives_an_account_or_one_line(
    anywhere: Path, changes: dict[str, object]
) -> None:
    info = {**account_info(), **changes}

    account_or_one_line(anywhere, json.dumps(info).encode(), {"private_key": account_info()["private_key"]})


@given(NEAR)
def test_an_account_with_fields_nearly_right_gives_an_account_or_one_line(
    anywhere: Path, cuts: dict[str, tuple[int, str, int]]
) -> None:
    info = account_info()
    for name, (start, text, length) in cuts.items():
        info[name] = info[name][:start] + text + info[name][start + length :]

    account_or_one_line(anywhere, json.dumps(info).encode(), info)


# --- a token -------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged, also by google-auth, whose log keeps to itself."""
    google = logging.getLogger("google")
    google.addHandler(caplog.handler)
    levels = {logger: logger.level for logger in (logging.getLogger(), google)}
    for logger in levels:
        logger.setLevel(logging.DEBUG)
    yield caplog
    for logger, level in levels.items():
        logger.setLevel(level)
    google.removeHandler(caplog.handler)


def no_token(path: Path, logged: pytest.LogCaptureFixture, **changes: object) -> str:
    """Why no token came: one line, with nothing secret in it or in the log."""
    account = read_service_account(write_account(path, **changes))
    with pytest.raises(ConnectionFailed) as refused:
        fetch_token(account)
    message = str(refused.value)
    shown = "".join(traceback.format_exception(refused.value)) + logged.text
    shown += "".join(str(vars(record)) for record in logged.records)
    assert message.isprintable()
    assert len(message) < 600
    assert not [secret for secret in secrets(account_info(**changes)) if secret in shown]
    where = f"{path}: no token from {account.token_uri.split('/')[2]} for {EMAIL}: "
    assert message.startswith(where), message
    return message.removeprefix(where)


def test_a_token_is_given_for_an_assertion_that_the_key_signed(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture
) -> None:
    account = read_service_account(write_account(path, token_uri=server.uri))

    credentials = fetch_token(account)

    assert credentials.token == TOKEN
    assert credentials.valid
    (claims,) = server.assertions  # whose signature, times, issuer and audience the server has checked
    assert claims["scope"] == "https://www.googleapis.com/auth/pubsub"
    shown = logged.text + "".join(str(vars(record)) for record in logged.records) + repr(credentials)
    assert not [secret for secret in secrets(account_info()) if secret in shown]


def test_credentials_ask_when_they_are_used(path: Path, server: TokenServer) -> None:
    account = read_service_account(write_account(path, token_uri=server.uri))
    credentials = google_credentials(account, ["a-scope", "another"])
    assert (credentials.token, server.asked) == (None, 0)

    credentials.refresh(None)

    assert credentials.token == TOKEN
    assert server.assertions[0]["scope"] == "a-scope another"


def test_a_copy_that_google_auth_makes_asks_in_the_same_way(path: Path, server: TokenServer) -> None:
    account = read_service_account(write_account(path, token_uri=server.uri))
    copy = google_credentials(account).with_quota_project("another-project")
    assert isinstance(copy, login.Login)
    copy.refresh(None)
    assert copy.token == TOKEN

    server.answer = lambda _: (302, {"Location": "http://127.0.0.1:1/"}, b"")

    with pytest.raises(
        ConnectionFailed, match=rf"^no token from 127\.0\.0\.1:{server.port} for {EMAIL}: it answers 302"
    ):
        copy.refresh(None)


def test_outside_of_googles_universe_the_token_is_signed_here(path: Path, server: TokenServer) -> None:
    account = read_service_account(
        write_account(path, token_uri=server.uri, universe_domain="universe.example.com")
    )

    credentials = fetch_token(account)

    assert credentials.token is not None
    assert credentials.token.count(".") == 2
    assert server.asked == 0


def test_a_key_that_the_server_does_not_know_is_refused(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture
) -> None:
    server.key = new_key("another").public_key()

    reason = no_token(path, logged, token_uri=server.uri)

    assert reason == "invalid_grant: Invalid JWT Signature; was the key deleted, or is the clock wrong?"
    assert server.asked == 1
    assert server.assertions == []


def test_an_account_that_the_server_does_not_know_is_refused(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda _: said(
        400, error="invalid_grant", error_description="Invalid grant: account not found"
    )

    assert "Invalid grant: account not found; " in no_token(path, logged, token_uri=server.uri)


def test_an_error_of_the_servers_is_tried_again_and_then_said(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda _: (503, {}, b"<html>Service Unavailable</html>")

    assert no_token(path, logged, token_uri=server.uri) == "it answers 503"
    assert server.asked == 3


def test_a_server_that_fails_once_gives_a_token(path: Path, server: TokenServer) -> None:
    def fail_once(form: Mapping[str, str]) -> Answer:
        return server.grant(form) if server.asked > 1 else (500, {}, b"")

    server.answer = fail_once

    assert fetch_token(read_service_account(write_account(path, token_uri=server.uri))).token == TOKEN


def json_body(text: str) -> Answer:
    return 200, {"Content-Type": "application/json"}, text.encode()


NO_TOKEN = "its answer is no token"
ODD_ANSWERS: dict[str, tuple[Answer, str]] = {
    "nothing": ((200, {}, b""), NO_TOKEN),
    "a page": ((200, {"Content-Type": "text/html"}, b"<html>Log in to the hotel's network</html>"), NO_TOKEN),
    "not text": ((200, {}, b"\xff\xfe\x00"), NO_TOKEN),
    "a list": (json_body("[]"), NO_TOKEN),
    "a number": (json_body("1"), NO_TOKEN),
    "null": (json_body("null"), NO_TOKEN),
    "an empty object": (json_body("{}"), NO_TOKEN),
    "a token that is null": (json_body('{"access_token": null}'), NO_TOKEN),
    "a token that is a number": (json_body('{"access_token": 1, "expires_in": 1}'), NO_TOKEN),
    "a token that is empty": (json_body('{"access_token": "", "expires_in": 1}'), NO_TOKEN),
    "a token in two lines": (json_body('{"access_token": "a\\r\\nb", "expires_in": 1}'), NO_TOKEN),
    "a time that is none": (json_body('{"access_token": "a", "expires_in": "soon"}'), NO_TOKEN),
    "a time that is a list": (json_body('{"access_token": "a", "expires_in": []}'), NO_TOKEN),
    "a time beyond all time": (json_body('{"access_token": "a", "expires_in": 1e300}'), NO_TOKEN),
    "deep nesting": (json_body("[" * 50_000), NO_TOKEN),
    "too much": (json_body('{"access_token": "' + "a" * 100_000 + '"}'), NO_TOKEN),
    "not what the header says": (
        (200, {"Content-Encoding": "gzip"}, b"{}"),
        "it does not answer as a web server does",
    ),
    "a refusal without a word": ((401, {}, b""), "it answers 401"),
    "a refusal in a list": ((400, {}, b"[]"), "it answers 400"),
    "a refusal as an object": (said(403, error={"message": "no"}), "it answers 403"),
    "a refusal as a number": (said(400, error=1, error_description=2), "it answers 400"),
    "a refusal that is empty": (said(400, error=" ", error_description="x"), "it answers 400"),
    "a refusal in one word": (said(400, error="invalid_scope"), "invalid_scope"),
    "a refusal to a terminal": (
        said(400, error="a\x1b[31m", error_description="b\r\nc\0\u202e"),
        "a[31m: b c",
    ),
    "a long refusal": (said(400, error="why " * 1000), ("why " * 50).rstrip(".")),
    "a redirect": (
        (302, {"Location": "https://example.com/"}, b""),
        "it answers 302, a redirect, which is not followed",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
def test_an_odd_answer_is_no_token(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture, answer: Answer, reason: str
) -> None:
    server.answer = lambda _: answer

    assert no_token(path, logged, token_uri=server.uri) == reason


def test_an_answer_that_repeats_the_assertion_is_not_shown(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture
) -> None:
    def repeat(form: Mapping[str, str]) -> Answer:
        assertions.append(form["assertion"])
        return said(400, error="invalid_request", error_description=f"what is {form['assertion']}?")

    assertions: list[str] = []
    server.answer = repeat

    reason = no_token(path, logged, token_uri=server.uri)

    assert reason == "invalid_request: what is ***?"
    assert assertions[0].rpartition(".")[2][:40] not in logged.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_assertion_goes_to_no_other_server(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture, status: int
) -> None:
    with TokenServer() as other:
        server.answer = lambda _: (status, {"Location": other.uri}, b"")

        reason = no_token(path, logged, token_uri=server.uri)

        assert reason == f"it answers {status}, a redirect, which is not followed"
        assert other.asked == 0


def test_no_proxy_stands_between_two_programs_of_one_machine(
    path: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert fetch_token(read_service_account(write_account(path, token_uri=server.uri))).token == TOKEN


def test_a_proxy_of_the_environment_leads_to_other_machines(
    path: Path, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    def refuse(client: socket.socket) -> None:
        heard.append(client.recv(65536))
        client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{served(refuse)}")

    reason = no_token(path, logged, token_uri="https://tokens.invalid/token")

    assert reason == "the proxy of the environment: Tunnel connection failed: 403 Forbidden"
    assert heard[0].startswith(b"CONNECT tokens.invalid:443 ")


def test_no_password_is_taken_from_netrc(
    path: Path, tmp_path: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr(login, "is_loopback", lambda _: False)  # so that the environment is heeded

    fetch_token(read_service_account(write_account(path, token_uri=server.uri)))

    assert "content-type" in server.headers
    assert "authorization" not in server.headers


def test_a_closed_port_is_said(path: Path, logged: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen

        reason = no_token(path, logged, token_uri=f"http://127.0.0.1:{closed.getsockname()[1]}/token")

    assert reason == "Connection refused"


def test_a_name_that_nobody_has_is_said(path: Path, logged: pytest.LogCaptureFixture) -> None:
    reason = no_token(path, logged, token_uri="https://tokens.invalid/token")

    assert "name" in reason.lower()  # in the words of the system's resolver


def test_a_silent_server_is_not_waited_for(
    path: Path, server: TokenServer, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_silent(_: Mapping[str, str]) -> Answer:
        server.closing.wait()
        return 500, {}, b""

    server.answer = be_silent
    monkeypatch.setattr(login, "TOKEN_SECONDS", 1.0)

    assert no_token(path, logged, token_uri=server.uri) == "no answer within 1 s"


def served(serve: Callable[[socket.socket], None]) -> int:
    """The port of a server that treats its one client so."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as client:
            serve(client)

    threading.Thread(target=run, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def hear(client: socket.socket) -> None:
    """Read a whole request: a socket that is closed before that resets the connection."""
    with client.makefile("rb") as said:
        length = 0
        while (line := said.readline()) not in (b"", b"\r\n"):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        said.read(length)


def test_a_server_that_drips_is_not_waited_for(
    path: Path, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def drip(client: socket.socket) -> None:
        hear(client)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not ended.wait(0.1):
            client.sendall(b" ")

    monkeypatch.setattr(login, "TOKEN_SECONDS", 1.0)

    try:
        assert no_token(path, logged, token_uri=f"http://127.0.0.1:{served(drip)}/") == "no answer within 1 s"
    finally:
        ended.set()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"", "it does not answer as a web server does"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "it does not answer as a web server does"),
        (b"HTTP/1.1 abc def\r\n\r\n", "it does not answer as a web server does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "it does not answer as a web server does"),
        (b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n{}", "its answer is no token"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n", "it does not answer as a web server does"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "it does not answer as a web server does",
        ),
    ],
)
def test_a_server_of_another_kind_is_no_token_server(
    path: Path, logged: pytest.LogCaptureFixture, words: bytes, reason: str
) -> None:
    def say(client: socket.socket) -> None:
        hear(client)
        client.sendall(words)

    assert no_token(path, logged, token_uri=f"http://127.0.0.1:{served(say)}/") == reason


def test_a_certificate_that_nobody_signed_is_refused(
    path: Path, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    certificate, key = Authority("a stranger").server("127.0.0.1")
    both = tmp_path / "server.pem"
    both.write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)

    def shake_hands(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(client, server_side=True).close()

    reason = no_token(path, logged, token_uri=f"https://127.0.0.1:{served(shake_hands)}/")

    assert reason == "its certificate is refused: unable to get local issuer certificate"


def test_a_server_without_tls_is_not_told_anything(path: Path, logged: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    def listen(client: socket.socket) -> None:
        heard.append(client.recv(65536))
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    reason = no_token(path, logged, token_uri=f"https://127.0.0.1:{served(listen)}/")

    assert reason.startswith("TLS fails: ")
    assert b"assertion" not in heard[0]


LOGIN = """
import sys
from imagebus import cli
from imagebus.transports.pubsub.login import fetch_token
from imagebus.transports.pubsub.account import read_service_account

def main():
    cli.configure_logging(verbose=True)
    print(fetch_token(read_service_account(sys.argv[1])))
    return 0

cli.run(main)
"""


@pytest.mark.parametrize("known", [True, False])
def test_a_verbose_program_shows_no_secret(path: Path, server: TokenServer, known: bool) -> None:
    if not known:
        server.key = new_key("another").public_key()
    write_account(path, token_uri=server.uri).chmod(0o644)
    # google-auth logs requests where this variable names it.
    environment = {**os.environ, "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google"}

    done = subprocess.run(
        [sys.executable, "-c", LOGIN, path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    shown = done.stdout + done.stderr
    assert done.returncode == (0 if known else 1), shown
    assert "chmod 600" in shown
    assert "Traceback" not in shown
    assert not [secret for secret in secrets(account_info()) if secret in shown]
