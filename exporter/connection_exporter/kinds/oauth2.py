"""Owns the access tokens of one service: fetches them from its token endpoint, keeps them, and drops refused ones.

Shared by the kinds whose sessions begin with an HTTP request. Every request for a token is part of an attempt, and so
of its deadline.
"""

import asyncio
import json
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

from connection_exporter import __version__
from connection_exporter.config.oauth2 import OAuth2Config
from connection_exporter.config.secret import read_text
from connection_exporter.config.tls import TlsConfig
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.net import Endpoint, Network, Proxy
from connection_exporter.net.http1.connection import HttpConnection
from connection_exporter.net.http1.response import Response
from connection_exporter.net.names import header_host, host_and_port
from connection_exporter.net.proxy import named
from connection_exporter.system.clock import Clock, SystemClock

RESPONSE_LIMIT: Final = 64 * 1024
"""Bytes of the body of a response."""

_MARGIN: Final = 60.0
_MARGIN_PART: Final = 0.1
"""A token is renewed so many seconds before it expires, or at this part of its lifetime if that is less."""

_LONGEST_LIFETIME: Final = 10 * 365 * 86400.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_REFUSED: Final = (400, 401, 403)


@dataclass(slots=True)
class _Token:
    """``header`` is the value of the Authorization header. ``renew_at`` is on the monotonic clock, ``None``: never."""

    header: str
    secret: str
    renew_at: float | None
    reused: bool = False


class TokenSource:
    """The tokens of one service. Requests go through ``proxy`` if the service has one."""

    def __init__(
        self, config: OAuth2Config, network: Network, proxy: Proxy | None, clock: Clock | None = None
    ) -> None:
        self._config = config
        self._network = network
        self._proxy = proxy
        self._clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._token: _Token | None = None
        self._in_header: bool | None = None  # how the endpoint accepts the secret, once that is known
        url = config.endpoint
        secure = url.scheme == "https"
        port = url.port or (443 if secure else 80)
        self._place = host_and_port(url.host, port)
        self._authority = host_and_port(header_host(url.host), url.port)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._whole = proxy is not None and not secure
        self._target = f"http://{self._authority}{path}" if self._whole else path
        self._endpoint = Endpoint(
            network,
            url.host,
            port,
            where=self._place,
            tls=(config.tls or TlsConfig()).options if secure else None,
            proxy=proxy,
            tunnel=secure,
        )

    async def authorization(self) -> str:
        """Return the value of the Authorization header, with a token that is valid. Raises `Failure`.

        The message of a `Failure` names the token endpoint, unless the exporter itself is at fault.
        """
        secret = await read_text(self._config, "client_secret") or ""
        try:
            async with self._lock:
                token = self._token
                if token is not None and token.secret == secret and not self._is_due(token):
                    token.reused = True
                else:
                    with named("token endpoint"):
                        token = self._token = await self._fetch(secret)
                return token.header
        except asyncio.CancelledError as cancelled:
            if cancelled.__cause__ is None:
                late = f"token endpoint {self._place} does not answer in time"
                raise cancelled from Failure(Reason.TIMEOUT, late)
            raise

    def refused(self, header: str) -> bool:
        """Drop the token of ``header``, which the service has refused; return whether another one may be accepted.

        One that was fetched for the refused request itself would only be followed by one like it.
        """
        token = self._token
        if token is None or token.header != header:
            return True  # another attempt has replaced it meanwhile
        self._token = None
        return token.reused

    def _is_due(self, token: _Token) -> bool:
        return token.renew_at is not None and self._clock.monotonic() >= token.renew_at

    async def _fetch(self, secret: str) -> _Token:
        """Ask for a token, with the secret in the header, where every server has to accept it, or else in the body."""
        in_header = self._in_header is not False
        status, answer = await self._post(secret, in_header=in_header)
        if status in _REFUSED and self._in_header is None:
            in_header = False
            status, answer = await self._post(secret, in_header=in_header)
        if status != 200 or "access_token" not in answer:
            raise self._refusal(status, answer)
        self._in_header = in_header
        return self._parsed(answer, secret)

    async def _post(self, secret: str, *, in_header: bool) -> tuple[int, dict[str, Any]]:
        config = self._config
        form = {"grant_type": "client_credentials"}
        if config.scopes:
            form["scope"] = " ".join(config.scopes)
        form |= config.endpoint_params
        lines = [
            f"POST {self._target} HTTP/1.1",
            f"Host: {self._authority}",
            f"User-Agent: connection-exporter/{__version__}",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "Content-Type: application/x-www-form-urlencoded",
            "Connection: close",
        ]
        if in_header:  # RFC 6749, section 2.3.1
            login = f"{quote_plus(config.client_id)}:{quote_plus(secret)}"
            lines.append(f"Authorization: Basic {b64encode(login.encode()).decode()}")
        else:
            form |= {"client_id": config.client_id, "client_secret": secret}
        if self._whole and self._proxy is not None:
            for_proxy = await self._proxy.authorization()
            lines += [f"Proxy-Authorization: {for_proxy}"] if for_proxy is not None else []
        body = urlencode(form).encode()
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
        response = await self._exchange(head + body)
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        return response.status, answer if isinstance(answer, dict) else {}

    async def _exchange(self, request: bytes) -> Response:
        connection = await HttpConnection.open(self._endpoint, self._network.pacer)
        try:
            response = await connection.exchange(request, body_limit=RESPONSE_LIMIT)
        finally:
            connection.abort()
        if not response.complete:
            limit = f"{RESPONSE_LIMIT // 1024} KiB"
            raise Failure(Reason.TOO_LARGE, f"{self._endpoint.where}: the response is longer than {limit}")
        return response

    def _refusal(self, status: int, answer: dict[str, Any]) -> Failure:
        """Return what a response without a token means (RFC 6749, section 5.2)."""
        said = [
            str(answer[key])[:100]
            for key in ("error", "error_description")
            if isinstance(answer.get(key), str)
        ]
        problem = f"{self._place}: status {status}" + (f", {': '.join(said)}" if said else "")
        if status in _REFUSED or (status == 200 and said):
            return Failure(Reason.AUTH, problem)
        return Failure(Reason.PROTOCOL, f"{problem}, and no access_token")

    def _parsed(self, answer: dict[str, Any], secret: str) -> _Token:
        token, kind = answer["access_token"], answer.get("token_type") or "Bearer"
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise Failure(Reason.PROTOCOL, f"{self._place}: access_token is not a token")
        if not isinstance(kind, str) or not kind.isascii() or not kind.isalnum() or len(kind) > 20:
            raise Failure(Reason.PROTOCOL, f"{self._place}: token_type is not the name of a scheme")
        self._config.remember(token)
        scheme = "Bearer" if kind.lower() == "bearer" else kind
        return _Token(f"{scheme} {token}", secret, self._renew_at(answer.get("expires_in")))

    def _renew_at(self, expires_in: object) -> float | None:
        """Return when to renew a token; servers also write its lifetime as text."""
        try:
            lifetime = float(expires_in) if isinstance(expires_in, int | float | str) else 0.0
        except (ValueError, OverflowError):
            lifetime = 0.0
        if not lifetime > 0:
            return None
        lifetime = min(lifetime, _LONGEST_LIFETIME)
        return self._clock.monotonic() + lifetime - min(_MARGIN, lifetime * _MARGIN_PART)
