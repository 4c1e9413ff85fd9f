"""Owns kind heartbeat: remembers the last beat, and loses the session when it is too old.

Beats come from the web layer, through `TakesBeats`. Nothing here listens or waits: an attempt only looks at the age of
the last beat, so a forced check reports the present state.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final, NamedTuple, Self

from connection_exporter.config.durations import format_duration
from connection_exporter.core.health import Reason
from connection_exporter.kind import (
    Beat,
    Failure,
    Json,
    Metric,
    MetricType,
    Observation,
    Session,
    TooEarly,
    Traits,
)
from connection_exporter.kinds.heartbeat.config import HeartbeatConfig
from connection_exporter.net import Network
from connection_exporter.system.clock import Clock, SystemClock

_METRICS: Final = (
    Metric(
        "connection_heartbeat_last_beat_timestamp_seconds",
        "Unix time of the last beat.",
        MetricType.GAUGE,
        "last_beat_timestamp_seconds",
    ),
    Metric("connection_heartbeat_beats_total", "Beats received.", MetricType.COUNTER, "beats"),
)


class _Received(NamedTuple):
    """A beat, and when it came: ``at`` on the monotonic clock, ``wall`` as Unix time."""

    beat: Beat
    at: float
    wall: float


class HeartbeatCheck:
    """One service that reports to the exporter."""

    address: Final = "-"  # it has none that we know
    traits: Final = Traits(
        reasons=frozenset({Reason.HEARTBEAT, Reason.SLOW, Reason.TIMEOUT, Reason.STALE, Reason.INTERNAL}),
        metrics=_METRICS,
        crosses_network=HeartbeatConfig.CONNECTS,
    )

    def __init__(self, config: HeartbeatConfig, network: Network, *, clock: Clock | None = None) -> None:
        del network
        self._config = config
        self._clock = clock or SystemClock()
        self._since = self._clock.monotonic()
        self._last: _Received | None = None
        self._uncounted = 0
        self._repeated: Observation | None = None

    async def token(self) -> str | None:
        """Return the token that a beat must carry, or ``None``. Raises `Failure` if its file cannot be read."""
        if self._config.token_file is not None:
            return await self._config.token_file.read("token_file")
        return self._config.token.get_secret_value() if self._config.token is not None else None

    def beat(self, beat: Beat) -> None:
        """Take a beat."""
        self._last = _Received(beat, self._clock.monotonic(), self._clock.wall())
        self._uncounted += 1
        self._repeated = None

    def notices_after(self) -> float:
        """Return `max_age`, in seconds."""
        return self._config.max_age

    def continue_from(self, earlier: Self) -> None:
        """Take over the last beat, and the time since when the first one is awaited."""
        self._since, self._last, self._uncounted = earlier._since, earlier._last, earlier._uncounted

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Session]:
        """Begin a session if the last beat is young enough. Raises `Failure`."""
        session = _HeartbeatSession(self)
        try:
            yield session
        finally:
            session.end()

    def time_left(self) -> float:
        """Return the seconds until the last beat is too old. Raises `Failure` if it is, or if there is none."""
        limit, now = self._config.max_age, self._clock.monotonic()
        left = (self._last.at if self._last is not None else self._since) + limit - now
        if self._last is None and left > 0:
            text = f"waiting for the first beat, for up to {format_duration(limit)}"
            raise TooEarly(Reason.HEARTBEAT, text, seconds=left)
        if left <= 0:
            raise Failure(Reason.HEARTBEAT, self._overdue(limit))
        return left

    def observe(self) -> Observation:
        """Return what the last beat said, as the same object while there is no other.

        Raises `Failure` if it is too old, or if there is none.
        """
        self.time_left()
        if self._uncounted:
            counts, self._uncounted = {"beats": self._uncounted}, 0
            return self._observation(counts)
        if self._repeated is None:
            self._repeated = self._observation({})
        return self._repeated

    def _observation(self, counts: Mapping[str, float]) -> Observation:
        assert self._last is not None
        beat = self._last.beat
        details: dict[str, Json] = {
            "last_beat_timestamp_seconds": self._last.wall,
            "message": beat.message or None,
        }
        if not beat.failed:
            return Observation(details=details, counts=counts)
        said = f": {beat.message}" if beat.message else ""
        return Observation(Reason.HEARTBEAT, f"the service reports a failure{said}", details, counts)

    def _overdue(self, limit: float) -> str:
        text = f"no beat for {format_duration(limit)}"
        if self._last is None:
            return f"{text}, and none before"
        return (
            f"{text}; the last one came at {datetime.fromtimestamp(self._last.wall, UTC):%Y-%m-%dT%H:%M:%SZ}"
        )


class _HeartbeatSession:
    """The time in which one beat follows another. It is lost when the last beat is too old."""

    peer: Final = None
    addresses: Final[frozenset[str]] = frozenset()

    def __init__(self, check: HeartbeatCheck) -> None:
        self._check = check
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Failure] = self._loop.create_future()
        self._timer = self._loop.call_later(check.time_left(), self._look)

    async def probe(self) -> Observation:
        """Report the last beat. Raises `Failure` if it is too old."""
        return self._check.observe()

    def end(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _look(self) -> None:
        """Wait for the rest of the time if there has been a beat meanwhile; otherwise the session is lost."""
        try:
            self._timer = self._loop.call_later(self._check.time_left(), self._look)
        except Failure as failure:
            self.lost.set_result(failure)
