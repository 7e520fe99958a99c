"""The login of a service account: a token from its token server alone, within a time limit.

google-auth signs the assertion and reads the answer; this module carries both. google-auth's own transport
waits two minutes for each of three tries, follows a redirect with the assertion, and lets an unreadable
answer escape as whatever error Python raised.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
from google.oauth2.service_account import Credentials
from requests.exceptions import ProxyError, RequestException, Timeout

from imagebus.errors import ConnectionFailed
from imagebus.transports.pubsub.account import ServiceAccount, is_loopback

SCOPES = ("https://www.googleapis.com/auth/pubsub",)  # what a token is for
TOKEN_SECONDS = 10.0  # for a token, including retries after an error 5xx; Google's server takes 0.2
MAX_ANSWER_BYTES = 64 * 1024  # of an answer; a token's is 1 kB
MAX_REASON = 200  # characters of the server's reason

# Longer than any word that explains something: an assertion, a token or a key.
_SECRET = re.compile(r"[\w.+/=~-]{40,}")
_TOKEN = re.compile(r"[!-~]+")


class Login(Credentials):
    """google-auth's credentials of a service account, which fetch a token through this module."""

    account: ServiceAccount | None = None  # for messages; a copy that google-auth makes is without

    def refresh(self, _: object) -> None:
        """Get a new token. The transport that google-auth passes is not used.

        Raises `ConnectionFailed`, one line with the file, the server and the reason.
        """
        exchange = _Exchange(time.monotonic() + TOKEN_SECONDS)
        trouble: list[str] = []

        def ask() -> None:
            try:
                Credentials.refresh(self, exchange)
                if not (isinstance(self.token, str) and _TOKEN.fullmatch(self.token)):
                    self.token = None
                    trouble.append("its answer is no token")
            except RequestException as error:
                trouble.append(_why(error))
            except Exception:  # google-auth's own, and those from reading an odd answer
                trouble.append(exchange.refusal())

        # A name look-up, and an answer that comes byte by byte, obey only this time limit.
        asking = threading.Thread(target=ask, name="token", daemon=True)
        asking.start()
        asking.join(TOKEN_SECONDS + 1)
        if asking.is_alive():
            trouble = [_no_answer()]
        if trouble:
            where = f"{self.account.path}: " if self.account else ""
            server = urlsplit(self._token_uri).netloc
            raise ConnectionFailed(
                f"{where}no token from {server} for {self.service_account_email}: {trouble[0]}"
            )


def google_credentials(account: ServiceAccount, scopes: Sequence[str] = SCOPES) -> Login:
    """google-auth's credentials, without a token yet: their user fetches one on demand."""
    made = Login(  # type: ignore[no-untyped-call]  # it has google-auth's constructor
        account.signer,
        service_account_email=account.client_email,
        token_uri=account.token_uri,
        scopes=list(scopes),
        project_id=account.project_id,
        universe_domain=account.universe_domain,
    )
    made.account = account
    return made


def fetch_token(account: ServiceAccount, scopes: Sequence[str] = SCOPES) -> Login:
    """Credentials with a token that the account's `token_uri` has just given for a signed assertion.

    Blocks for at most `TOKEN_SECONDS`, and one more. Raises `ConnectionFailed`, one line with
    file, server and reason, when no token comes. Outside of Google's own universe no server is asked:
    the token is signed here.
    """
    credentials = google_credentials(account, scopes)
    credentials.refresh(None)
    return credentials


def one_line(text: str) -> str:
    """Foreign text, shortened, without control characters and possible secrets."""
    words = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    return _SECRET.sub("***", words)[:MAX_REASON]


class _Answer(NamedTuple):
    """An answer as google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class _Exchange:
    """The transport that google-auth calls, as often as it likes until the deadline."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline  # time.monotonic()
        self._last: _Answer | None = None

    def __call__(
        self, url: str, method: str, body: bytes, headers: Mapping[str, str], **_: object
    ) -> _Answer:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Timeout
        with requests.Session() as session:
            session.trust_env = not is_loopback(urlsplit(url).hostname or "")  # no proxy on this machine
            session.auth = _as_it_is
            with session.request(
                method, url, data=body, headers=headers, timeout=left, stream=True, allow_redirects=False
            ) as response:
                content = b""
                for piece in response.iter_content(8192):
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        content = b""  # whatever it is, it is no token
                        break
                self._last = _Answer(response.status_code, response.headers, content)
        return self._last

    def refusal(self) -> str:
        """Why the last answer is no token: the server's words, or the status."""
        if self._last is None:
            return "the request could not be made"
        try:
            said = json.loads(self._last.data)
        except (ValueError, RecursionError):
            said = None
        status = self._last.status
        if status == 200:
            return "its answer is no token"
        if isinstance(said, dict) and isinstance(said.get("error"), str) and said["error"].strip():
            words = [each for each in (said["error"], said.get("error_description")) if isinstance(each, str)]
            hint = "; was the key deleted, or is the clock wrong?" if words[0] == "invalid_grant" else ""
            return one_line(": ".join(words)).rstrip(".") + hint
        if 300 <= status < 400:
            return f"it answers {status}, a redirect, which is not followed"
        return f"it answers {status}"


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """A login that adds nothing, where requests would look for one in netrc."""
    return request


def _no_answer() -> str:
    return f"no answer within {TOKEN_SECONDS:.0f} s"


def _why(error: RequestException) -> str:
    """The reason at the bottom of an error of requests, which wraps it several times."""
    if isinstance(error, Timeout):
        return _no_answer()
    through = "the proxy of the environment: " if isinstance(error, ProxyError) else ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{through}its certificate is refused: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"{through}TLS fails: {cause.reason or 'no reason was given'}"
        if isinstance(cause, TimeoutError):
            return _no_answer()
        if isinstance(cause, OSError) and cause.strerror:
            return f"{through}{cause.strerror}"
        if type(cause) is OSError:  # http.client's for a proxy that refuses, with the proxy's words
            return f"{through}{one_line(str(cause))}"
        cause = cause.__cause__ or cause.__context__
    return f"{through}it does not answer as a web server does"
