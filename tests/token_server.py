"""A token server on loopback that believes a signature and nothing else, and service accounts for it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

AUDIENCE = (
    "https://oauth2.googleapis.com/token"  # of each assertion, whoever is asked: google-auth's constant
)
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN = "ya29.a-token-of-the-test-that-nobody-should-ever-see-anywhere"
EMAIL = "tester@project-of-a-test.iam.gserviceaccount.com"
KEY_ID = "canary0d1f5a7be3c24f6e8d9a0b1c2d3e4f5a6b7c8d9e"


@cache
def new_key(name: str = "", bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key; under the same name the same one again, because making one takes its time."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(key: Any) -> str:
    """A private key as Google writes it."""
    written: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return written.decode()


def account_info(**changes: object) -> dict[str, Any]:
    """What is in a service account's JSON. A field changed to None is left out."""
    info = {
        "type": "service_account",
        "project_id": "project-of-a-test",
        "private_key_id": KEY_ID,
        "private_key": pem(new_key()),
        "client_email": EMAIL,
        "client_id": "123456789012345678901",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": AUDIENCE,
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/tester",
        "universe_domain": "googleapis.com",
        **changes,
    }
    return {name: value for name, value in info.items() if value is not None}


def write_account(path: Path, **changes: object) -> Path:
    """A service account's JSON in a file that only its owner can read."""
    path.touch(0o600)
    path.write_text(json.dumps(account_info(**changes), indent=2))
    return path


class Refused(Exception):
    """The assertion is not to be believed; the text is the server's `error_description`."""


class TokenServer:
    """Gives `TOKEN` for an assertion that the account's key signed, as Google's server does.

    `assertions` are the claims of those that it believed. A test may replace `answer`: it gets what was
    posted, and returns status, headers and body.
    """

    def __init__(self) -> None:
        self.key = new_key().public_key()
        self.assertions: list[dict[str, Any]] = []
        self.asked = 0
        self.headers: dict[str, str] = {}  # of the last request, in lower case
        self.answer: Callable[[Mapping[str, str]], tuple[int, Mapping[str, str], bytes]] = self.grant
        self.closing = threading.Event()  # what a silent answer waits for
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def grant(self, form: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """A token, or why there is none."""
        try:
            self.assertions.append(self.believe(form))
        except Refused as refused:
            return said(400, error="invalid_grant", error_description=str(refused))
        return said(200, access_token=TOKEN, expires_in=3599, token_type="Bearer")

    def believe(self, form: Mapping[str, str]) -> dict[str, Any]:
        """The claims of the assertion, once its signature, its times and its names are right."""
        if form.get("grant_type") != GRANT:
            raise Refused("Invalid grant_type.")
        signed, _, signature = form["assertion"].rpartition(".")
        header, claims = (json.loads(decoded(part)) for part in signed.split("."))
        if header != {"alg": "RS256", "typ": "JWT", "kid": KEY_ID}:
            raise Refused("Invalid JWT header.")
        try:
            self.key.verify(decoded(signature), signed.encode(), padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            raise Refused("Invalid JWT Signature.") from None
        now = time.time()
        if not (now - 60 < claims["iat"] <= now + 1 and now < claims["exp"] <= claims["iat"] + 3600):
            raise Refused("Invalid JWT: Token must be a short-lived token.")
        if claims["iss"] != EMAIL or claims["aud"] != AUDIENCE:
            raise Refused("Invalid JWT: the issuer or the audience is another one.")
        return dict(claims)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.asked += 1
                server.headers = {name.lower(): value for name, value in self.headers.items()}
                posted = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, headers, body = server.answer({name: values[0] for name, values in posted.items()})
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def said(status: int, **fields: object) -> tuple[int, Mapping[str, str], bytes]:
    """An answer in JSON."""
    return status, {"Content-Type": "application/json"}, json.dumps(fields).encode()


def decoded(part: str) -> bytes:
    """A part of an assertion, which comes without its padding."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
