"""The config of kind http."""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from connection_exporter.config.conditions import Conditions
from connection_exporter.config.http_login import CONTROL, HeaderValue
from connection_exporter.config.patterns import CompiledPattern
from connection_exporter.config.request import TOKEN, RequestConfig
from connection_exporter.config.secret import SecretFile
from connection_exporter.config.strict import Strict, at_most_one
from connection_exporter.config.tls import TlsConfig
from connection_exporter.kinds.http.statuses import StatusPatterns, undefined

_SIZE: Final = r"(\d+)\s*(B|KiB|MiB)"
_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
_HEADER_WANTED: Final = (
    "expected a regular expression for the value, {not: regular expression}, or {absent: true}"
)
_OURS: Final = ("connection", "content-length", "transfer-encoding", "expect", "upgrade", "accept-encoding")


def _size(value: object) -> object:
    if isinstance(value, str):
        found = re.fullmatch(_SIZE, value.strip())
        if found is None:
            raise ValueError("expected a size such as 64KiB, 1MiB or a number of bytes")
        return int(found[1]) * _UNITS[found[2]]
    return value


def _patterns(value: object) -> object:
    for pattern in value if isinstance(value, list) else [] if value is None else [value]:
        if not isinstance(pattern, str):
            raise ValueError("expected a regular expression, or a list of them; a number needs quotes")
        CompiledPattern(pattern)
    return value


def _header_condition(value: object) -> object:
    keys = {"matches": value} if isinstance(value, str) else value
    if not isinstance(keys, dict) or not keys or keys.keys() - {"matches", "not", "absent"}:
        raise ValueError(_HEADER_WANTED)
    for key, operand in keys.items():
        if not isinstance(operand, bool if key == "absent" else str):
            raise ValueError(_HEADER_WANTED)
    if keys.get("absent") and len(keys) > 1:
        raise ValueError("a header that must be absent has no value: write {absent: true} alone")
    _patterns([operand for operand in keys.values() if isinstance(operand, str)])
    return value


def _header(name: str) -> str:
    if not TOKEN.fullmatch(name):
        raise ValueError("not the name of a header")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by the exporter itself: remove it")
    return name


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path begins with /")
    if CONTROL.search(path):
        raise ValueError("a path cannot contain a control character")
    return path


HeaderName = Annotated[str, AfterValidator(_header)]
Size = Annotated[
    int,
    BeforeValidator(_size, json_schema_input_type=int | Annotated[str, Field(pattern=f"^{_SIZE}$")]),
]
Patterns = Annotated[str | list[str] | None, BeforeValidator(_patterns)]
HeaderCondition = Annotated[
    str | dict[Literal["matches", "not", "absent"], str | bool], BeforeValidator(_header_condition)
]


class HttpExpect(Strict):
    """The conditions for a good response. All of them must hold."""

    SHAPE = "{status: [VALUE]}"

    status: StatusPatterns = Field(
        ["2xx"],
        min_length=1,
        description="statuses that are good: 200, 2xx, 200-299, or a comparison such as '<300'",
    )
    headers: dict[str, HeaderCondition] = Field(
        {},
        description="for each header, a regular expression (RE2) for its value, `{not: …}` or `{absent: true}`",
    )
    body: Patterns = Field(
        None,
        description="regular expression (RE2) that the body must match, or a list; all of them must match",
    )
    not_body: Patterns = Field(
        None, description="regular expression (RE2) that the body must not match, or a list; none may match"
    )
    json_: Conditions = Field(
        {},
        alias="json",
        description="for each path in a JSON body, its value or a comparison, as in data.items[0].size: {'>=': 5}",
    )

    @property
    def reads_body(self) -> bool:
        """Whether a condition reads the body."""
        return bool(self.body or self.not_body or self.json_)


def _head_has_no_body(config: "HttpConfig") -> str | None:
    if config.method == "HEAD" and config.expect.reads_body:
        return "a response to HEAD has no body: use GET with expect.body and expect.json"
    return None


class HttpConfig(RequestConfig):
    """An HTTP or HTTPS API, requested over a kept connection.

    Every probe, canary and forced check is a real request: with an interval of 30s, 120 probes and 12 canaries an
    hour, which count against the rate limit of the API's key and may cost money. The request is repeated once when
    the kept connection turns out to be closed, so ``method`` should be one that changes nothing.
    """

    HOLDS_SESSION = False

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {
        **RequestConfig.OTHER_NAMES,
        **dict.fromkeys(("valid_status_codes", "status"), "expect: {status: …}"),
        "fail_if_body_not_matches_regexp": "expect: {body: …}",
        "fail_if_body_matches_regexp": "expect: {not_body: …}",
        "conditions": "expect: {status: …, json: …}",
        "body_size_limit": "body_limit",
    }
    _SCHEMES: ClassVar = ("http", "https")
    RULES = (_head_has_no_body, at_most_one("body", "body_file"))

    kind: Literal["http"]
    url: str | None = Field(None, description="http:// or https:// URL; or host, port, path and tls")
    path: Annotated[str, AfterValidator(_target)] = Field(
        "/", max_length=8192, repr=False, description="path, with its ?query"
    )
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by https://")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="method of the request"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        {}, description="additional headers of the request: text, or `{file: PATH}`"
    )
    body: str | None = Field(None, repr=False, description="body of the request")
    body_file: SecretFile | None = Field(
        None, description="file that contains the body, as UTF-8; line breaks at its end are left out"
    )
    follow_redirects: bool = Field(
        False,
        description="whether to follow a redirect (3xx); off by default, because a login page would look healthy",
    )
    max_redirects: int = Field(5, ge=1, le=20, description="maximum number of redirects to follow")
    body_limit: Size = Field(
        64 * 1024,
        ge=1,
        le=16 * 1024 * 1024,
        description="largest body in bytes; a larger one is a bad answer",
    )
    expect: HttpExpect = Field(HttpExpect(), description="the conditions for a good response")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What `warn_about` has found, and statuses that hardly any server sends."""
        if not (statuses := undefined(self.expect.status)):
            return super().warnings
        return (*super().warnings, f"expect.status: HTTP defines no status {statuses}, only 200 to 599")
