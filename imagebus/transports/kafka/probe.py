"""Why a secured connection fails: a probe of the other end with Python's own socket.

librdkafka has the same words for an unknown authority and a wrong host name, and none at all for a client
that speaks plaintext to a TLS port. It reports that all brokers are down once, and not always: a
coordinator that loses its address meanwhile spoils its count. The probe sends nothing but a TLS
handshake: no request, no login.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

HANDSHAKE_SECONDS = 2.0  # for each step of a handshake that a broker next door finishes in milliseconds
KNOCK_SECONDS = 0.5  # for a connection alone; a callback waits for it
_WRONG_NAME = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH


def wants_tls(settings: Mapping[str, str]) -> bool:
    """Whether these settings ask for TLS."""
    return settings.get("security.protocol", "plaintext").lower().endswith("ssl")


def speaks_tls(server: str) -> bool | None:
    """Whether `server`, as host:port, answers a TLS handshake; None if it does not answer at all."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing secret is sent
    try:
        with _connect(server, HANDSHAKE_SECONDS) as plain:
            try:
                context.wrap_socket(plain).close()
            except ssl.SSLError as error:
                # An alert is TLS too: the server may require a client certificate.
                return "ALERT" in (error.reason or "")
            except ConnectionError:
                return False
            return True
    except OSError:
        return None


def anyone_listens(servers: str) -> bool:
    """Whether any of `servers`, as in bootstrap.servers, takes a connection."""
    for server in servers.split(","):
        try:
            _connect(server, KNOCK_SECONDS).close()
        except OSError:
            continue
        return True
    return False


def why_unreachable(server: str, seconds: float) -> str | None:
    """Why `server`, as host:port, takes no connection in so many seconds; None if it does."""
    try:
        _connect(server, seconds).close()
    except TimeoutError:
        return f"no answer in {seconds:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    return None


def certificate_trouble(server: str, settings: Mapping[str, str]) -> tuple[str, str] | None:
    """The setting to look at and what is wrong with the certificate of `server`; None if it is fine."""
    try:
        context = _verifying(settings)
        with _connect(server, HANDSHAKE_SECONDS) as plain:
            context.wrap_socket(plain, server_hostname=_split(server)[0]).close()
    except ssl.SSLCertVerificationError as error:
        key = "bootstrap.servers" if error.verify_code in _WRONG_NAME else "ssl.ca.location"
        return key, error.verify_message.rstrip(".")
    except (OSError, ValueError):
        return None
    return None


def _verifying(settings: Mapping[str, str]) -> ssl.SSLContext:
    """A context that trusts what the settings trust."""
    where, pem = settings.get("ssl.ca.location", ""), settings.get("ssl.ca.pem")
    if where in ("", "probe") and not pem:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if pem:
        context.load_verify_locations(cadata=pem)
        return context
    try:
        context.load_verify_locations(cafile=where)
    except IsADirectoryError:
        context.load_verify_locations(capath=where)
    return context


def _connect(server: str, seconds: float) -> socket.socket:
    try:
        return socket.create_connection(_split(server), seconds)
    except UnicodeError:  # such as a label of 64 letters
        raise OSError("no host can have that name") from None


def _split(server: str) -> tuple[str, int]:
    """Host and port of one of `bootstrap.servers`, which may begin with a protocol and lack the port."""
    _, _, address = server.rpartition("://")
    host, colon, port = address.strip().rpartition(":")
    if not colon or port.endswith("]"):
        host, port = address, "9092"  # librdkafka's default
    return host.strip("[] "), int(port)
