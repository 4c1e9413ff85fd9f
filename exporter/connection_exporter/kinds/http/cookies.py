"""Keeps cookies along one chain of redirects: login pages set a cookie and expect it at the next request.

The rules of RFC 6265 on domain, path and security are those of the standard library. Nothing is kept for the
next probe.
"""

import re
from email.message import Message
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from http.cookiejar import CookieJar

COUNT_LIMIT: Final = 50
"""Set-Cookie headers of one chain that are looked at."""

SIZE_LIMIT: Final = 16 * 1024
"""Bytes of them. The most expensive ones take 3 ms."""

_ATTRIBUTE: Final = re.compile(
    r"(?:domain|path)\s*=\s*[^\s].*|secure|max-age\s*=\s*-?[0-9]{1,9}", re.IGNORECASE
)
_EXPIRED: Final = re.compile(r"expires\s*=.*\b(?:19[0-9][0-9]|20[01][0-9])\b.*", re.IGNORECASE)


class _Headers:
    """What `CookieJar` reads of a response."""

    def __init__(self, values: list[bytes]) -> None:
        self._message = Message()
        for value in values:
            self._message["Set-Cookie"] = _relevant(value.decode("latin-1"))

    def info(self) -> Message:
        return self._message


class Cookies:
    """The cookies of one chain. URLs are those of requests, with their paths."""

    def __init__(self) -> None:
        self._jar: CookieJar | None = None
        self._count = 0
        self._size = 0

    def take(self, url: str, values: list[bytes]) -> None:
        """Take the values of the Set-Cookie headers of a response. What exceeds the limits is ignored."""
        from urllib.request import Request  # noqa: PLC0415 - 2 ms, as in `_empty_jar`

        taken: list[bytes] = []
        for value in values:
            self._count += 1
            self._size += len(value)
            if self._count > COUNT_LIMIT or self._size > SIZE_LIMIT:
                break
            taken.append(value)
        if taken:
            if self._jar is None:
                self._jar = _empty_jar()
            self._jar.extract_cookies(cast("HTTPResponse", _Headers(taken)), Request(url))  # noqa: S310 - it opens nothing

    def value_for(self, url: str) -> bytes:
        """Return the value of the Cookie header for a request, or nothing."""
        if self._jar is None:
            return b""
        from urllib.request import Request  # noqa: PLC0415 - as above

        request = Request(url)  # noqa: S310 - it opens nothing
        self._jar.add_cookie_header(request)
        return (request.get_header("Cookie") or "").encode("latin-1")


def _empty_jar() -> "CookieJar":
    """Return a jar in which a cookie without a domain goes back to its own host alone, as in RFC 6265."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # noqa: PLC0415 - 7 ms and 0.7 MiB; few chains set cookies

    strict = DefaultCookiePolicy.DomainStrictNonDomain
    return CookieJar(DefaultCookiePolicy(rfc2965=False, strict_domain=True, strict_ns_domain=strict))


def _relevant(cookie: str) -> str:
    """Keep of a Set-Cookie header what matters within seconds: `CookieJar` warns of bugs of its own for other dates."""
    pair, *parts = (part.strip() for part in cookie.split(";"))
    attributes = list(filter(None, parts))
    kept = [attribute for attribute in attributes if _ATTRIBUTE.fullmatch(attribute)]
    if any(_EXPIRED.fullmatch(attribute) for attribute in attributes):
        kept.append("Max-Age=0")
    return "; ".join((pair, *kept))
