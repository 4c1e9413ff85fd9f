"""Connecting: several addresses, scopes of IPv6, and what no table of errors lists."""

import asyncio
import resource
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from connection_exporter.core.health import Reason
from connection_exporter.demo.ports import free_port
from connection_exporter.kind import Failure
from connection_exporter.net import Network
from connection_exporter.net.dial import _connect_to_any
from connection_exporter.net.names import IpVersion

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine on each event loop that the exporter may have."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


def link_local() -> str | None:
    """Return a link-local IPv6 address of this machine with its scope, or ``None``."""
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.exists() else []:
        digits, _, _, scope, _, name = line.split()
        if scope == "20":
            return ":".join(digits[i : i + 4] for i in range(0, 32, 4)) + f"%{name}"
    return None


async def failure_of(host: str, port: int) -> Failure:
    with pytest.raises(Failure) as raised:
        await Network().dial(host, port)
    return raised.value


def test_a_refusal_counts_more_than_an_unreachable_address(run: Run) -> None:
    """A name with an IPv6 address that leads nowhere, and a service that is stopped: `refused`, reported once."""
    port = free_port()

    async def scenario() -> Failure:
        with pytest.raises(Failure) as raised:
            await _connect_to_any(("2001:db8::1", "127.0.0.1"), port, "host:1")
        return raised.value

    failure: Failure = run(scenario())
    assert (failure.reason, failure.message) == (Reason.REFUSED, "host:1: connection refused")


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux drops a SYN when the queue of a listener is full"
)
def test_a_refusal_counts_more_than_an_address_that_does_not_answer(run: Run) -> None:
    """At the deadline, which covers all addresses, what is known of one of them is more than silence of another."""

    async def scenario() -> BaseException | None:
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(2):
                await _connect_to_any(("127.0.0.3", "127.0.0.2"), port, "host:1")
        cancelled = late.value.__cause__
        return cancelled.__cause__ if cancelled is not None else None

    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", port))
            waiting.append(client)
        failure = run(scenario())
        for client in waiting:
            client.close()
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.message) == (Reason.REFUSED, "host:1: connection refused")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_single_address_is_connected_to_as_one_of_several(run: Run, address: str) -> None:
    """It takes part in no race, and gets the same socket; or the same failure if nobody listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]

        async def scenario() -> list[tuple[object, ...]]:
            infos: list[tuple[object, ...]] = []
            for addresses in ((address,), (address, address)):
                with await _connect_to_any(addresses, port, "host:1") as sock:
                    infos.append(
                        (sock.family, sock.type, sock.proto, sock.getblocking(), sock.getpeername()[:2])
                    )
            return infos

        single, raced = run(scenario())
    assert single == raced

    async def failures() -> list[tuple[Reason, str]]:
        seen: list[tuple[Reason, str]] = []
        for addresses in ((address,), (address, address)):
            with pytest.raises(Failure) as raised:
                await _connect_to_any(addresses, port, "host:1")
            seen.append((raised.value.reason, raised.value.message))
        return seen

    alone, both = run(failures())
    assert alone == both == (Reason.REFUSED, "host:1: connection refused")


def test_a_later_address_is_used_when_the_first_fails(run: Run) -> None:
    """The first one refuses, the second one answers."""
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]
        with run(_connect_to_any(("127.0.0.3", "127.0.0.2"), port, "host:1")) as sock:
            assert sock.getpeername() == ("127.0.0.2", port)


@pytest.mark.parametrize("host", ["fe80::1", "fe80::1%no-such-interface", "fe80::1%99999999999"])
def test_an_address_that_the_kernel_does_not_accept_is_unreachable(run: Run, host: str) -> None:
    """A link-local address without a scope, or with one that does not exist, is no fault of the exporter."""
    failure: Failure = run(failure_of(host, 1))
    assert failure.reason is Reason.UNREACHABLE
    assert failure.message.startswith(f"[{host}]:1: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "/run/it.sock"])
def test_the_last_descriptors_are_left_to_scrapes(run: Run, host: str) -> None:
    """An address, a name and a Unix socket alike, whether or not somebody listens there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as lowest_free:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free.fileno() + 20, hard))
            failure: Failure = run(failure_of(host, listener.getsockname()[1]))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failure.reason is Reason.INTERNAL
    assert "file descriptors" in failure.message


def test_a_broadcast_address_is_not_internal(run: Run) -> None:
    """EACCES, ENETUNREACH or EINVAL, by kernel."""
    failure: Failure = run(failure_of("255.255.255.255", 1))
    assert failure.reason in (Reason.UNREACHABLE, Reason.PERMISSION)


@pytest.mark.skipif(link_local() is None, reason="this machine has no link-local IPv6 address")
def test_a_link_local_address_is_reached_through_its_scope(run: Run) -> None:
    """uvloop's own `sock_connect` drops the scope. The peer equals the configured address."""
    address = link_local()
    assert address is not None
    bare, _, name = address.partition("%")
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind((bare, 0, 0, socket.if_nametoindex(name)))
        listener.listen()
        link = run(Network().dial(address, listener.getsockname()[1]))
        assert link.peer in link.addresses
        link.sock.close()


def test_the_peer_is_among_the_addresses_however_the_address_is_written(run: Run) -> None:
    """Otherwise each canary would take the session for one to an address that the name no longer has."""
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener.listen()
        link = run(Network().dial("0:0:0:0:0:0:0:1", listener.getsockname()[1]))
        assert link.peer == "::1"
        assert link.addresses == {"::1"}
        link.sock.close()


def test_a_unix_socket_whose_queue_is_full_is_a_timeout(run: Run, tmp_path: Any) -> None:
    """The kernel reports EAGAIN at once (unix(7)). It must not pass for a connection."""
    path = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(path):
                break
        failure: Failure = run(failure_of(path, 0))
        for client in waiting:
            client.close()
    assert failure.reason is Reason.TIMEOUT


@pytest.mark.parametrize(("ip_version", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_only_addresses_of_one_version_are_used(run: Run, ip_version: IpVersion, address: str) -> None:
    """A literal of that version is accepted; a name resolves to such addresses alone."""
    network = Network().with_ip_version(ip_version)

    async def scenario(host: str) -> None:
        link = await network.dial(host, port)
        assert link.peer == address
        assert link.addresses == {address}
        link.sock.close()

    with socket.socket(socket.AF_INET if ip_version == 4 else socket.AF_INET6) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener.listen()
        port = listener.getsockname()[1]
        run(scenario(address))
        if any(found[4][0] == address for found in socket.getaddrinfo("localhost", port)):
            run(scenario("localhost"))


@pytest.mark.parametrize(
    ("ip_version", "host", "reason", "message"),
    [
        (4, "::1", Reason.UNREACHABLE, "::1 is an IPv6 address, but ip_version is 4"),
        (6, "127.0.0.1", Reason.UNREACHABLE, "127.0.0.1 is an IPv4 address, but ip_version is 6"),
        (6, "no-such-host.invalid", Reason.DNS, "no-such-host.invalid does not resolve to an IPv6 address: "),
    ],
)
def test_without_an_address_of_the_version_there_is_no_attempt(
    run: Run, ip_version: IpVersion, host: str, reason: Reason, message: str
) -> None:
    """A redirect may lead to such an address."""

    async def scenario() -> Failure:
        with pytest.raises(Failure) as raised:
            await Network().with_ip_version(ip_version).dial(host, 1)
        return raised.value

    failure: Failure = run(scenario())
    assert failure.reason is reason
    assert failure.message.startswith(message)


@pytest.mark.parametrize("host", ["api.localhost", "API.Localhost", "a.b.localhost.", "localhost."])
def test_a_name_below_localhost_is_this_machine(run: Run, host: str) -> None:
    """As in browsers and curl, also where the resolver does not know it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        async def scenario() -> None:
            for network in (Network(), Network().with_ip_version(4)):
                (await network.dial(host, port)).sock.close()

        run(scenario())


def test_a_name_that_only_looks_like_localhost_is_another(run: Run) -> None:
    """Its labels count, and not its letters."""
    for host in ("notlocalhost.invalid", "localhost.invalid", "x.localhost.invalid"):
        assert run(failure_of(host, 1)).reason is Reason.DNS


def test_a_name_with_any_characters_is_resolved_in_its_ascii_form(run: Run) -> None:
    """Fullwidth letters lead to localhost, as in browsers."""

    async def scenario(port: int) -> None:
        link = await Network().dial("\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54", port)
        link.sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        run(scenario(listener.getsockname()[1]))


def test_a_message_shows_the_name_in_both_forms(run: Run) -> None:
    """What the user wrote, and what the resolver was asked for."""
    failure: Failure = run(failure_of("stra\xdfe.invalid", 1))
    assert failure.reason is Reason.DNS
    assert failure.message.startswith("stra\xdfe.invalid (xn--strae-oqa.invalid) does not resolve: ")


def test_a_message_has_an_ipv6_address_in_brackets(run: Run) -> None:
    """Without them, nobody sees where the address ends and the port begins."""
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = listener.getsockname()[1]

        async def dial() -> None:
            with pytest.raises(Failure) as failed:
                await Network().dial("::1", port)
            assert failed.value.message == f"[::1]:{port}: connection refused"

        run(dial())
