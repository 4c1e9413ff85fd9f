"""Delivers alerts to one Alertmanager: at once when something changes, and every `RESEND_EVERY` seconds.

What cannot be delivered is retried with back-off. Nothing is queued but the names of services whose alerts have
changed, so the memory is bounded by the number of services, and what is sent is always the current state.
"""

import asyncio
import ssl
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import httpx

from connection_exporter.alerting.ledger import RESEND_EVERY, Alert, Ledger
from connection_exporter.config.alerting import AlertingConfig
from connection_exporter.config.url import place_of
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.monitor.attempt import waited_for
from connection_exporter.net.names import certificate_name
from connection_exporter.net.tls import TlsContexts
from connection_exporter.net.tls_options import TlsOptions
from connection_exporter.system.clock import Clock
from connection_exporter.system.log import get_logger
from connection_exporter.system.wakeup import Wakeup

_IN_ONE_REQUEST: Final = 200
"""Alerts. Each has 1 to 20 KB, and a request of many megabytes must not be sent."""

_APART: Final = 0.02
"""Seconds between two requests. The first of many alerts is sent at once, and those that follow it together."""

_RETRY_AFTER: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry; the last one repeats. A connection that was closed while idle needs no delay."""

_TIMEOUT: Final = 5.0
"""Seconds for one request, and for the files that it needs."""

_FRESH_FOR: Final = 1.5 * RESEND_EVERY
"""Seconds for which a delivery shows that the next one will succeed."""

_LONGEST_ANSWER: Final = 64 * 1024

_CLOCKS_AGREE: Final = 10.0
"""Seconds by which clocks may differ without an effect."""

_NO_CLOCK: Final = 100 * 365 * 86400.0
"""Seconds by which no clock is wrong. One that was never set shows 1970; and the year 10000 cannot be written."""

log = get_logger(__name__)


class Sender:
    """Sends the alerts of ``ledger`` to the Alertmanager at ``url``, while `run` runs.

    ``accepted`` is called with the name of the service of each alert that Alertmanager has accepted.
    """

    def __init__(
        self,
        url: str,
        config: AlertingConfig,
        ledger: Ledger,
        *,
        clock: Clock,
        contexts: TlsContexts,
        generator_url: str,
        accepted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url = url
        self.place = place_of(url)
        # Neither `host` nor the Host header that httpx would make of it: both raise for names that IDNA 2008 forbids.
        self._host = httpx.URL(url).raw_host.decode()
        self._authority = httpx.URL(url).netloc
        self.sent = 0
        self.failed = 0
        self.delivered_at = clock.wall()
        """Everything that changed before this time has been delivered, in seconds since the epoch."""
        self._config = config
        self._ledger = ledger
        self._clock = clock
        self._contexts = contexts
        self._generator_url = generator_url
        self._accepted = accepted
        self._client: httpx.AsyncClient | None = None
        self._context: ssl.SSLContext | None = None
        self._changed: set[str] = set()
        self._wakeup = Wakeup()
        self._delivered: float | None = None
        self._failures = 0
        self._skew = 0.0

    @property
    def healthy(self) -> bool:
        """Whether the last delivery succeeded, not long ago."""
        return self._delivered is not None and self._clock.monotonic() - self._delivered < _FRESH_FOR

    def send(self, name: str) -> None:
        """Send the alert of a service as soon as possible."""
        self._changed.add(name)
        self._wakeup.set()

    async def run(self) -> None:
        """Send until cancelled. The first request shows whether Alertmanager can be reached, with or without alerts."""
        try:
            everything, due = True, 0.0
            while True:
                names, self._changed = self._changed, set()
                try:
                    await self._deliver(None if everything else names)
                except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may affect anything else
                    self._note_failure(error)
                    everything = True  # Alertmanager may have missed anything
                    await asyncio.sleep(_RETRY_AFTER[min(self._failures, len(_RETRY_AFTER)) - 1])
                    continue
                if everything:
                    due = self._clock.monotonic() + RESEND_EVERY
                await asyncio.sleep(_APART)
                woken = await self._wakeup.wait(max(due - self._clock.monotonic(), 0.0))
                # Changes that never end must not keep the leases of all other alerts from being renewed.
                everything = not woken or self._clock.monotonic() >= due
        finally:
            if self._client is not None:
                await self._client.aclose()

    async def _deliver(self, names: set[str] | None) -> None:
        now = self._clock.wall()
        alerts = self._to_send(now, names)
        for start in range(0, max(len(alerts), 1), _IN_ONE_REQUEST):
            part = alerts[start : start + _IN_ONE_REQUEST]
            await self._post_alerts(part, now)
        self.delivered_at = now
        self._delivered = self._clock.monotonic()
        if self._failures:
            log.info("alertmanager_reached", alertmanager=self.place, failures=self._failures)
            self._failures = 0

    async def _post_alerts(self, alerts: list[Alert], now: float) -> None:
        """Send alerts in one request, or in several if a proxy in between takes only shorter ones."""
        try:
            await self._post([alert.as_json(now, self._generator_url, skew=self._skew) for alert in alerts])
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or len(alerts) < 2:
                raise
            half = len(alerts) // 2
            await self._post_alerts(alerts[:half], now)
            await self._post_alerts(alerts[half:], now)
        else:
            self.sent += len(alerts)
            for alert in alerts:
                self._accepted(alert.labels["name"])

    def _to_send(self, now: float, names: set[str] | None = None) -> list[Alert]:
        return self._ledger.to_send(now, names, undelivered_since=self.delivered_at)

    async def _post(self, alerts: list[dict[str, Any]]) -> None:
        tls = self._config.tls
        name = tls.server_name if tls is not None and tls.server_name else self._host
        url, extensions = f"{self.url}/api/v2/alerts", {"sni_hostname": certificate_name(name)}
        async with asyncio.timeout(_TIMEOUT):
            client = await self._current_client()
            authorization = await self._config.authorization()
            headers = {b"Host": self._authority}
            if authorization is not None:
                headers[b"Authorization"] = authorization.encode()
            async with client.stream(
                "POST", url, json=alerts, headers=headers, extensions=extensions
            ) as answer:
                answer.raise_for_status()
                self._skew = _skew(answer.headers.get("Date", ""), self._clock.wall())
                size = 0
                async for part in answer.aiter_raw():
                    size += len(part)
                    if size > _LONGEST_ANSWER:
                        raise Failure(Reason.TOO_LARGE, "the answer is too long")

    async def _current_client(self) -> httpx.AsyncClient:
        """Return a client with the current TLS context: its files are read again, so that renewed ones are used."""
        context = None
        if self.url.startswith("https:"):
            options = self._config.tls.options if self._config.tls is not None else TlsOptions()
            context = await self._contexts.get(options)
        if self._client is None or context is not self._context:
            if self._client is not None:
                await self._client.aclose()
            self._context = context
            self._client = httpx.AsyncClient(
                verify=context if context is not None else False,
                trust_env=False,
                limits=httpx.Limits(max_connections=1, keepalive_expiry=2 * RESEND_EVERY),
                timeout=_TIMEOUT,
            )
        return self._client

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        self.failed += len(self._to_send(self._clock.wall()))
        self._delivered = None
        # The first failure may only be a connection that was closed while idle.
        level = log.warning if self._failures == 2 else log.debug
        level("alertmanager_not_reached", alertmanager=self.place, error=_problem(error))


def _skew(date: str, now: float) -> float:
    """Return by how many seconds the clock of the other end is ahead, from the Date of its answer (RFC 9110, 6.6.1).

    If the clock is wrong, Alertmanager would take an open alert for one whose lease has ended, or an end for a lease.
    """
    try:
        ahead = parsedate_to_datetime(date).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return ahead if _CLOCKS_AGREE < abs(ahead) < _NO_CLOCK else 0.0


def _problem(error: Exception) -> str:
    """Return what went wrong, without what the other end has sent."""
    known = error if isinstance(error, Failure) else waited_for(error)
    if known is not None:
        return known.message
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP status {error.response.status_code}"
    return type(error).__name__
