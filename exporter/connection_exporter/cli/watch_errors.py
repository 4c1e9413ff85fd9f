"""Says why `watch` cannot follow what is at a URL, and what to do about it. It does no I/O."""

import os
import socket
import ssl
from http import HTTPStatus
from typing import Final, NamedTuple

import httpx

from connection_exporter.config.url import parse_host
from connection_exporter.net.failures import NO_TLS

IS_IT: Final = "is it a connection-exporter?"

_UNTRUSTED: Final = (18, 19, 20, 21)
"""X509_V_ERR_*: self-signed, or by an authority that is not known here."""
_PASSING: Final = (408, 425, 429)
"""Statuses from 300 to 499 that another attempt may change."""
_NOT_HERE: Final = (404, 405)
_NO_RESPONSE: Final = "without sending a response"
"""Where the server closes the connection at once, httpx says this. It has no type of its own for it."""


class Problem(NamedTuple):
    """Why there are no events; ``is_final`` if another attempt would change nothing."""

    text: str
    is_final: bool = False


def mistake_in(url: str) -> str | None:
    """Return what is wrong with an invalid URL of an exporter."""
    try:
        given = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return (
            "not an address: write http://host:port; in a password % : / ? # @ have to be escaped, as in %2F"
        )
    if (
        given.scheme not in ("http", "https")
        or not _is_host(given.raw_host.decode())
        or (given.port or 0) > 65535
    ):
        return "not an address: write http://host:port"
    if given.query or given.fragment:
        return "expected no ? or # in the address: write http://host:port"
    return None


def without_login(url: str) -> str:
    """Return the URL without user and password."""
    try:
        if (given := httpx.URL(url)).raw_host:
            return str(given.copy_with(userinfo=b""))
    except (httpx.InvalidURL, ValueError):
        pass
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def problem_of(error: httpx.HTTPError | ssl.SSLError | UnicodeError, url: str, *, was_live: bool) -> Problem:
    """Return why there are no events at ``url``. Until it ``was_live``, what is there may be no exporter."""
    place = without_login(url)
    if isinstance(error, UnicodeError):  # httpx cannot decode a name that IDNA 2008 forbids
        return Problem(f"{place} redirects to a host whose name is not valid", is_final=True)
    cause = _cause_of(error)
    if isinstance(error, httpx.HTTPStatusError):
        return _refusal(error.response, place, was_live=was_live)
    if isinstance(cause, ssl.SSLError) and (problem := _tls_problem(cause, place)) is not None:
        return problem
    if isinstance(error, httpx.ConnectError):
        return Problem(f"cannot reach {_with_port(place)}: {_words(cause)}")
    if isinstance(error, httpx.TimeoutException):
        is_silent = isinstance(error, httpx.ReadTimeout) and not was_live
        return Problem(f"{place} does not respond" + (f": {IS_IT}" if is_silent else ""))
    if was_live:
        return Problem(f"lost the connection to {place}" + (f" ({error})" if str(error) else ""))
    if isinstance(error, httpx.RemoteProtocolError) and _NO_RESPONSE not in str(error):
        return Problem(f"{place} does not speak HTTP: {IS_IT}", is_final=True)
    if isinstance(error, httpx.DecodingError):
        return Problem(f"{place} sends nothing that can be decoded: {IS_IT}", is_final=True)
    return Problem(f"{place} closes the connection without an HTTP response: {IS_IT}{_or_tls(place)}")


def _refusal(response: httpx.Response, place: str, *, was_live: bool) -> Problem:
    status = response.status_code
    is_final = 300 <= status < 500 and status not in _PASSING
    if response.next_request is not None:
        target = without_login(str(response.next_request.url)).partition("?")[0].removesuffix("/events")
        return Problem(f"{place} redirects to {target}: if that is the exporter, watch it there", is_final)
    text = f"{without_login(str(response.url))} responds with {status} {response.reason_phrase}".rstrip()
    if status == HTTPStatus.UNAUTHORIZED:
        with_login = place.replace("://", "://USER:PASSWORD@", 1)
        is_wrong = "authorization" in response.request.headers
        text += ": wrong user or password" if is_wrong else f": write {with_login}"
    elif not was_live and (status == HTTPStatus.BAD_REQUEST or status in _NOT_HERE):
        text += f": {IS_IT}{_or_tls(place) if status == HTTPStatus.BAD_REQUEST else _or_no_path(place)}"
    return Problem(text, is_final)


def _tls_problem(error: ssl.SSLError, place: str) -> Problem | None:
    if error.reason in NO_TLS:
        plain = httpx.URL(place).copy_with(scheme="http")
        return Problem(f"{place} does not use TLS: write {plain}", is_final=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the certificate of {place} is not valid: {error.verify_message.rstrip('.')}"
        hint = (
            ": set SSL_CERT_FILE to a file that contains its authority"
            if error.verify_code in _UNTRUSTED
            else ""
        )
        return Problem(text + hint, is_final=True)
    if "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return Problem(f"{place} requires a client certificate, which watch does not have", is_final=True)
    return None


def _with_port(place: str) -> str:
    """Add the port that a URL without one means, because it is easy to forget that ours is another."""
    url = httpx.URL(place)
    return place if url.port is not None else f"{place} (port {443 if url.scheme == 'https' else 80})"


def _or_tls(place: str) -> str:
    url = httpx.URL(place)
    return f" With TLS, its address is {url.copy_with(scheme='https')}" if url.scheme == "http" else ""


def _or_no_path(place: str) -> str:
    url = httpx.URL(place)
    return f" Its address usually has no path: {url.copy_with(path='/')}" if url.path != "/" else ""


def _is_host(host: str) -> bool:
    try:
        return bool(host) and not parse_host(host).startswith("/")
    except ValueError:
        return False


def _cause_of(error: BaseException) -> BaseException:
    """Return the error of the operating system or of OpenSSL that is behind one of httpx."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _words(error: BaseException) -> str:
    errors = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    words = [os.strerror(one.errno) for one in errors if isinstance(one, OSError) and one.errno]
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name does not resolve"
    return words[0].lower() if words else str(error)
