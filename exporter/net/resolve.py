"""Owns name resolution that cannot disturb others: one look-up in flight per name, each on its own thread.

``getaddrinfo`` cannot be cancelled, and asyncio runs it on a small shared pool: twenty names whose
resolver is silent would stop every other look-up, and the pool would hold up the exit. A daemon
thread per look-up does neither.
"""

import asyncio
import ipaddress
import socket
from contextlib import suppress
from threading import Thread

from exporter.check import Failure
from exporter.core.health import Reason
from exporter.net.failures import NO_THREADS


class Resolver:
    """Look-ups that callers share while they are in flight. Belongs to one event loop."""

    def __init__(self) -> None:
        self._in_flight: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return the IP addresses of ``host``, in the system's order of preference.

        Raises `Failure`: dns, or internal where no thread can be had. A caller that gives up leaves the
        look-up to those that still wait.
        """
        if is_ip(host):
            return (host,)
        answer = self._in_flight.get(host)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            try:
                Thread(target=_look_up, args=(host, answer), name=f"resolve {host}", daemon=True).start()
            except RuntimeError as error:
                raise Failure(Reason.INTERNAL, NO_THREADS) from error
            self._in_flight[host] = answer
            answer.add_done_callback(lambda _: self._in_flight.pop(host, None))
        return await asyncio.shield(answer)


def is_ip(host: str) -> bool:
    """Tell whether ``host`` is an IP address already (an IPv6 scope such as ``%eth0`` included)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _look_up(host: str, answer: "asyncio.Future[tuple[str, ...]]") -> None:
    result: tuple[str, ...] | Failure
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        result = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    except (OSError, UnicodeError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        result = Failure(Reason.DNS, f"{host} does not resolve: {text}")
    with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
        answer.get_loop().call_soon_threadsafe(_settle, answer, result)


def _settle(answer: "asyncio.Future[tuple[str, ...]]", result: tuple[str, ...] | Failure) -> None:
    if answer.done():
        return
    if isinstance(result, Failure):
        answer.set_exception(result)
        answer.exception()  # seen, even when every caller has given up
    else:
        answer.set_result(result)
