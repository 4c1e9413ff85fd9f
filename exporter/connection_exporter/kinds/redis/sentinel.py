"""Owns asking the sentinels which server is the master. Keeps no connection to them between two questions.

All sentinels are asked at the same time, and a majority of them has to name the same server. A client of Sentinel
usually believes the first one that answers; a monitor must not, because that one may be cut off from the others.
https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final

from connection_exporter.config.url import parse_host, parse_port
from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure, Json
from connection_exporter.kinds.redis.config import Address, SentinelConfig
from connection_exporter.kinds.redis.connection import Request, shown
from connection_exporter.kinds.redis.protocol import Refusal, Reply
from connection_exporter.kinds.redis.server import RedisServer
from connection_exporter.net import Network
from connection_exporter.net.names import host_and_port

_GRACE: Final = 0.25
"""Seconds in which the other sentinels may still answer once a majority has decided."""

_GRACE_OF_TIMEOUT: Final = 0.1
"""The longest part of the deadline that this may take."""

_LONGEST_HOST: Final = 255
_SHOWN: Final = 5


class Sentinels:
    """The sentinels of one service. ``agreeing`` is how many of them named the same master when last asked."""

    def __init__(
        self, config: SentinelConfig, network: Network, *, timeout: float, canary: float | None
    ) -> None:
        self.agreeing = 0
        self._config = config
        self._request = Request.of(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", config.master))
        servers = [
            RedisServer(network, host, port, tls=config.tls, canary=canary) for host, port in config.addresses
        ]
        self._servers = {server.where: server for server in servers}
        self._quorum = self.known // 2 + 1
        self._grace = min(_GRACE, _GRACE_OF_TIMEOUT * timeout)

    @property
    def known(self) -> int:
        """The number of sentinels that are configured."""
        return len(self._servers)

    def details(self, master: str) -> dict[str, Json]:
        """Return the details of a session with ``master``."""
        return {"master": master, "sentinels_known": self.known, "sentinels_agreeing": self.agreeing}

    async def find_master(self) -> Address:
        """Return the address that a majority of the sentinels names. Raises `Failure`."""
        password = await self._config.read_password("sentinel.password_file")
        answers: dict[str, Address | Failure] = {}
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._ask(where, password, answers)) for where in self._servers]
                await self._until_decided(asked, answers)
        except asyncio.CancelledError as cancelled:
            raise cancelled from self._no_master(answers, late=True)
        master, self.agreeing = _most_named(answers)
        if master is None or self.agreeing < self._quorum:
            raise self._no_master(answers)
        return master

    async def _until_decided(
        self, asked: "Collection[asyncio.Task[None]]", answers: dict[str, Address | Failure]
    ) -> None:
        """Wait until no further answer matters, and a little longer for a complete picture."""
        loop, pending = asyncio.get_running_loop(), set(asked)
        until: float | None = None
        while pending:
            left = None if until is None else until - loop.time()
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            agreeing = _most_named(answers)[1]
            if until is None and (agreeing >= self._quorum or agreeing + len(pending) < self._quorum):
                until = loop.time() + self._grace
        for task in pending:
            task.cancel()

    async def _ask(self, where: str, password: str | None, answers: dict[str, Address | Failure]) -> None:
        try:
            answers[where] = await self._answer(where, password)
        except Failure as failure:
            answers[where] = failure
        except asyncio.CancelledError as cancelled:
            if isinstance(cancelled.__cause__, Failure):  # it names what was waited for
                answers[where] = cancelled.__cause__
            raise

    async def _answer(self, where: str, password: str | None) -> Address:
        async with self._servers[where].log_in(self._config.user, password) as opened:
            [reply] = await opened.connection.exchange(self._request)
        return self._address(where, reply)

    def _address(self, where: str, reply: Reply) -> Address:
        """Return the address in a reply, which is ``[host, port]``. Raises `Failure`."""
        if isinstance(reply, Refusal):
            raise Failure(reply.reason, f"{where}: {reply.line}")
        if reply is None:
            raise Failure(Reason.MISSING, f"{where} monitors no master {self._config.master!r}")
        if isinstance(reply, list) and len(reply) == 2:
            host, port = reply
            if isinstance(host, bytes) and isinstance(port, bytes) and len(host) <= _LONGEST_HOST:
                try:
                    address = parse_host(host.decode()), parse_port(port.decode(), key="port")
                except ValueError:
                    pass
                else:
                    if not address[0].startswith("/"):
                        return address
        raise Failure(Reason.PROTOCOL, f"{where} names no address: {shown(reply)}")

    def _no_master(self, answers: dict[str, Address | Failure], *, late: bool = False) -> Failure:
        """Return why no master is known. ``late`` is true if the deadline has passed."""
        _, self.agreeing = _most_named(answers)
        failures = [answer for answer in answers.values() if isinstance(answer, Failure)]
        for failure in failures:
            if failure.reason is Reason.INTERNAL:  # no descriptor is left: the sentinels are not at fault
                return failure
        disagree = len({answer for answer in answers.values() if not isinstance(answer, Failure)}) > 1
        if disagree or not (failures or late):
            reason = Reason.ROLE
        else:
            reason = Reason.TIMEOUT if late else Counter(f.reason for f in failures).most_common(1)[0][0]
        told = "; ".join([_told(where, answers.get(where)) for where in self._servers][:_SHOWN])
        return Failure(
            reason,
            f"{self.agreeing} of {self.known} sentinels agree on the master of {self._config.master!r}, "
            f"{self._quorum} have to: {told}",
        )


def _most_named(answers: dict[str, Address | Failure]) -> tuple[Address | None, int]:
    """Return the address that most sentinels name, and how many."""
    named = Counter(answer for answer in answers.values() if not isinstance(answer, Failure))
    return named.most_common(1)[0] if named else (None, 0)


def _told(where: str, answer: Address | Failure | None) -> str:
    if isinstance(answer, Failure):
        return answer.message
    return f"{where} does not answer" if answer is None else f"{where} names {host_and_port(*answer)}"
