"""Tries the hosts of a service in libpq's order, under one deadline, until one is what the config asks for.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.postgresql.attributes import require
from connection_exporter.kinds.postgresql.config import Attributes, PostgresqlConfig
from connection_exporter.kinds.postgresql.connection import Connection, HostConnector, Passed
from connection_exporter.net import Network

_MOST_INFORMATIVE: Final = (
    *(Reason.ROLE, Reason.STARTING, Reason.REFUSED, Reason.RESET, Reason.TIMEOUT, Reason.PERMISSION),
    *(Reason.UNREACHABLE, Reason.DNS),
)
"""From a server that has answered to a name that does not exist. Any other reason comes after these."""


class Connector:
    """Makes the connections of one service."""

    def __init__(self, config: PostgresqlConfig, network: Network) -> None:
        self._wanted = config.target_session_attrs
        self._timeout = config.timeout
        self._hosts = [HostConnector(config, network, target) for target in config.targets]

    async def connect(self) -> tuple[Connection, Attributes]:
        """Return a connection that is logged in, and what its server is and has to remain.

        Raises `Failure`, with everything closed. As in libpq, a host that cannot be reached, is starting or is not
        what is wanted is passed over, and any other failure, such as a wrong password, is final.
        """
        rounds: tuple[Attributes, ...] = (self._wanted,)
        if self._wanted == "prefer-standby":
            rounds = ("standby", "any")
        ends = asyncio.get_running_loop().time() + self._timeout
        left = len(rounds) * len(self._hosts)
        for wanted in rounds:
            failures: list[Failure] = []
            for host in self._hosts:
                try:
                    return await _within_share(host, wanted, ends=ends, left=left), wanted
                except Passed as failure:
                    failures.append(failure)
                except asyncio.CancelledError as cancelled:
                    if failures and isinstance(cancelled.__cause__, Failure):
                        raise cancelled from _all_of([*failures, cancelled.__cause__])
                    raise
                left -= 1
        raise _all_of(failures)


async def _within_share(host: HostConnector, wanted: Attributes, *, ends: float, left: int) -> Connection:
    """Connect within this host's share of the time that is left until ``ends``. Raises `Failure`.

    The last host gets all that is left, and the caller's deadline ends it.
    """
    now = asyncio.get_running_loop().time()
    waited_for: BaseException | None = None
    try:
        async with asyncio.timeout_at(now + (ends - now) / left if left > 1 else None):
            try:
                return await _connect(host, wanted)
            except asyncio.CancelledError as cancelled:
                waited_for = cancelled.__cause__
                raise
    except TimeoutError as error:
        silent = (
            waited_for
            if isinstance(waited_for, Failure)
            else Failure(Reason.TIMEOUT, f"{host.where}: no answer")
        )
        raise Passed(silent.reason, silent.message) from error


async def _connect(host: HostConnector, wanted: Attributes) -> Connection:
    connection = await host.connect()
    try:
        await require(connection, wanted)
    except BaseException:
        connection.wire.close()
        raise
    return connection


def _all_of(failures: Sequence[Failure]) -> Failure:
    """Return one failure that says what is wrong with each host, the most informative first, which is the reason."""
    if len(failures) == 1:
        return failures[0]
    order = {reason: place for place, reason in enumerate(_MOST_INFORMATIVE)}
    ranked = sorted(failures, key=lambda failure: order.get(failure.reason, len(order)))
    return Failure(ranked[0].reason, "; ".join(dict.fromkeys(failure.message for failure in ranked)))
