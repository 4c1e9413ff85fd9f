"""The config of kind tcp."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from connection_exporter.config.patterns import CompiledPattern, Pattern
from connection_exporter.config.secret import SecretFile
from connection_exporter.config.service import Duration, Host, Port, ServiceConfig
from connection_exporter.config.strict import Strict, at_most_one
from connection_exporter.config.tls import TlsConfig
from connection_exporter.config.url import URL_KEYS, parse_url
from connection_exporter.net.names import host_and_port

LINE_LIMIT: Final = 1024
"""Bytes of a line in which `expect` looks for its pattern."""

_WORK: Final = 500_000
"""Bytes times instructions of a pattern that one search may take: 6 ms at worst."""

_LEAST_SEARCHED: Final = 250
_SCHEMES: Final = {"tcp": False, "tls": True, "ssl": True}
_HEX_SHAPE: Final = "expected bytes in hexadecimal, as in 0d 0a"


def searched(pattern: CompiledPattern) -> int:
    """Return how many bytes of a line are searched for ``pattern``."""
    return min(LINE_LIMIT, _WORK // max(pattern.size, 1))


def _simple_enough(source: str) -> str:
    if searched(CompiledPattern(source)) < _LEAST_SEARCHED:
        raise ValueError("the pattern takes too long to search: use fewer or smaller repetitions")
    return source


def _hex(text: str) -> str:
    try:
        data = bytes.fromhex(text.removeprefix("0x").replace(":", " "))
    except ValueError:
        raise ValueError(_HEX_SHAPE) from None
    if not data:
        raise ValueError(_HEX_SHAPE)
    return data.hex(" ")


def _secret_hex(text: SecretStr) -> SecretStr:
    return SecretStr(_hex(text.get_secret_value()))


def _does_something(step: "Step") -> str | None:
    keys = ("send", "send_hex", "send_file", "expect", "expect_hex")
    empty = all(getattr(step, key) is None for key in keys)
    return f"a step needs one of {', '.join(keys)}" if empty else None


def _within_has_expect(step: "Step") -> str | None:
    alone = step.within is not None and step.expect is None and step.expect_hex is None
    return "within needs expect: add expect, or remove within" if alone else None


class Step(Strict):
    """One step of a dialogue: something to send, an answer to expect, or both in this order."""

    RULES = (
        at_most_one("send", "send_hex", "send_file"),
        at_most_one("expect", "expect_hex"),
        _does_something,
        _within_has_expect,
    )

    send: SecretStr | None = Field(
        None,
        min_length=1,
        description='text to send, exactly as written; most protocols need "…\\r\\n", in double quotes',
    )
    send_hex: Annotated[SecretStr, AfterValidator(_secret_hex)] | None = Field(
        None, description="bytes to send, in hexadecimal"
    )
    send_file: SecretFile | None = Field(
        None,
        description="file that contains the line to send; it is read for each connection and ends in CRLF",
    )
    expect: Annotated[Pattern, AfterValidator(_simple_enough)] | None = Field(
        None, description="regular expression (RE2) that a line must match; other lines are skipped"
    )
    expect_hex: Annotated[str, AfterValidator(_hex)] | None = Field(
        None, description="bytes that must arrive, in hexadecimal; what comes before them is skipped"
    )
    within: Duration | None = Field(
        None, gt=0.0, description="how long to wait for the answer; default: four fifths of `timeout`"
    )

    @property
    def expects(self) -> bool:
        """Whether the server has to answer."""
        return self.expect is not None or self.expect_hex is not None


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


Dialogue = Annotated[list[Step], BeforeValidator(_listed, json_schema_input_type=list[Step] | Step)]


def _has_a_place(config: "TcpConfig") -> str | None:
    if config.host is None:
        return (
            "the address is missing: write `address: host:port`, `url: tcp://host:port`, or `host` and `port`"
        )
    missing = config.port is None and not config.host.startswith("/")
    return "`port` is missing: add it" if missing else None


class TcpConfig(ServiceConfig):
    """A server of any protocol over TCP or a Unix socket, held by one connection."""

    RULES = (_has_a_place,)

    kind: Literal["tcp"]
    url: str | None = Field(
        None, repr=False, description="tcp://host:port, tls://host:port, or unix:///path; or host and port"
    )
    address: str | None = Field(None, repr=False, description="host:port, instead of host and port")
    host: Host | None = Field(None, description="host name, address or path of a Unix socket")
    port: Port | None = Field(None, description="port")
    tls: TlsConfig | None = Field(None, description="TLS; also turned on by tls:// and by starttls")
    starttls: Literal["smtp", "imap", "pop3", "postgresql"] | None = Field(
        None, description="protocol in which a connection begins in plain text and then switches to TLS"
    )
    on_connect: Dialogue = Field([], description="dialogue at the start of each session")
    on_probe: Dialogue = Field([], description="dialogue at each probe")

    @classmethod
    def parse_given(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Replace `url` or `address` by their parts. Raises ValueError."""
        places = [key for key in ("url", "address", "host") if given.get(key) is not None]
        if len(places) > 1:
            raise ValueError(f"{places[0]} and {places[1]} both give the address: keep one")
        parts, begins_with_tls = _parts(given)
        if "port" in parts and given.get("port") is not None:
            raise ValueError(f"{places[0]} and port both set port: keep one")
        if begins_with_tls and given.get("starttls") is not None:
            raise ValueError("starttls begins in plain text: write tcp://, or remove starttls")
        if given.get("tls") is None and (begins_with_tls or given.get("starttls") is not None):
            parts["tls"] = {}
        return {**given, **parts, **{key: None for key in URL_KEYS if isinstance(given.get(key), str)}}

    @property
    def where(self) -> str:
        """The configured host:port, or the path of the Unix socket."""
        host = self.host or ""
        return host if host.startswith("/") else host_and_port(host, self.port or 0)

    @property
    def is_answered(self) -> bool:
        """Whether there is a dialogue at a probe. Otherwise the kernel alone answers."""
        return any(step.expects for step in self.on_probe)


def _parts(given: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return host and port as `url` or `address` say them, and whether the connection begins with TLS."""
    url, key = given.get("url"), "url"
    if url is None and isinstance(address := given.get("address"), str):
        url, key = f"tcp://{address}", "address"
    if not isinstance(url, str):
        return {}, False
    if url.startswith("unix://"):
        return {"host": url.removeprefix("unix://")}, False
    read = parse_url(url.strip(), tuple(_SCHEMES), key=key)
    if read.user is not None or read.password is not None:
        raise ValueError(f"{key}: credentials have no meaning here: send them in on_connect")
    if read.path not in ("", "/") or read.query:
        raise ValueError(f"{key}: only a host and a port are expected")
    if not read.host:
        raise ValueError(f"{key}: the host is missing")
    parts = {"host": read.host} | ({"port": read.port} if read.port is not None else {})
    return parts, _SCHEMES[read.scheme]
