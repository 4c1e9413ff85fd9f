"""Owns the config of kind http. Must not import the driver."""

import re
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from exporter.config.conditions import Conditions
from exporter.config.patterns import Pattern
from exporter.config.request import CONTROL, TOKEN, HeaderValue, RequestConfig
from exporter.config.service import Strict, TlsConfig

_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB)")
_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
_OURS: Final = ("connection", "content-length", "transfer-encoding", "expect", "upgrade", "accept-encoding")


def _size(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError("expected a size such as 64KiB, 1MiB or a number of bytes")
        return int(found[1]) * _UNITS[found[2]]
    return value


def _statuses(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _status(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-5]xx", value):
        return value
    raise ValueError("expected a status such as 200, or a class of them such as 2xx")


def _header(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("not the name of a header")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is the exporter's own to send: remove it")
    return name


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path begins with /")
    if CONTROL.search(path):
        raise ValueError("a path cannot hold a control character")
    return path


HeaderName = Annotated[str, AfterValidator(_header)]
Size = Annotated[int, BeforeValidator(_size)]
StatusPattern = Annotated[int | str, BeforeValidator(_status)]


class HttpExpect(Strict):
    """What has to be true of an answer. Several conditions must all hold."""

    status: Annotated[list[StatusPattern], BeforeValidator(_statuses)] = Field(
        ["2xx"], min_length=1, description="statuses that are good: 200, or a class such as 2xx"
    )
    headers: dict[str, Pattern] = Field(
        {}, description="name of a header to a regular expression for its value"
    )
    body: Pattern | None = Field(
        None, description="regular expression (RE2) that the body, as UTF-8, has to match"
    )
    json_: Conditions = Field(
        {},
        alias="json",
        description="path in the body to a value or comparison, as in data.items[0].state: {'>=': 5}",
    )

    @property
    def reads_body(self) -> bool:
        """Whether a condition is about the body."""
        return self.body is not None or bool(self.json_)


class HttpConfig(RequestConfig):
    """An HTTP or HTTPS API, asked over a kept connection.

    Every probe, canary and force-check is a real request: at an interval of 30s that is 120 an hour, and 12
    canaries, which count against the rate limit of the API's key and may cost something. The request is
    repeated once when a kept connection turns out to be closed, so ``method`` should change nothing.
    """

    _SCHEMES: ClassVar = ("http", "https")

    kind: Literal["http"]
    url: str | None = Field(None, description="http:// or https:// URL; or host, port, path and tls")
    path: Annotated[str, AfterValidator(_target)] = Field(
        "/", max_length=8192, repr=False, description="path, with its ?query"
    )
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by https://")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="method of the request"
    )
    headers: dict[HeaderName, HeaderValue] = Field({}, description="further headers of the request")
    body: str | None = Field(None, repr=False, description="body of the request")
    follow_redirects: bool = Field(
        False, description="whether to go where a 3xx points; off, as a login page would look healthy"
    )
    max_redirects: int = Field(5, ge=1, le=20, description="longest chain of redirects that is followed")
    body_limit: Size = Field(
        64 * 1024, ge=1, le=16 * 1024 * 1024, description="bytes of a body that are read; a longer one is bad"
    )
    expect: HttpExpect = Field(HttpExpect(), description="what has to be true of the answer")

    @model_validator(mode="after")
    def _head_has_no_body(self) -> Self:
        if self.method == "HEAD" and self.expect.reads_body:
            raise ValueError("an answer to HEAD has no body: expect body and json go with GET")
        return self
