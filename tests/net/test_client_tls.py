"""TLS to a hostile server: no flood of records holds up the event loop, and nothing that arrives is lost."""

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import trustme
from connection_exporter.core.health import Reason
from connection_exporter.net import Endpoint, Network, TlsOptions, failure_from
from connection_exporter.net.client_tls import ClientTls
from connection_exporter.net.pacing import Pacer
from support.certificates import presenting
from support.hostile import assert_iterations_are_short
from support.watched import on_uvloop

CONNECTIONS = 6


class Server:
    """The server's end of one TLS connection."""

    def __init__(self, client: socket.socket, context: ssl.SSLContext) -> None:
        self.socket = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                self._incoming.write(self.socket.recv(65536))
            else:
                self.socket.sendall(self._outgoing.read())
                return

    def records(self, data: bytes, *, size: int) -> bytes:
        """Return ``data`` encrypted, in records of ``size`` bytes."""
        for at in range(0, len(data), size):
            self.tls.write(data[at : at + size])
        return self._outgoing.read()

    def send(self, data: bytes, *, size: int) -> None:
        self.socket.sendall(self.records(data, size=size))

    def end(self) -> None:
        """Send close_notify."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        self.socket.sendall(self._outgoing.read())


@contextmanager
def serving(
    behave: Callable[[Server], None],
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    *,
    group: str = "prime256v1",
) -> Iterator[int]:
    """Have ``behave`` serve every client, in a thread each; yield the port. ``group`` is that of the key exchange."""
    context = presenting(trustme.CA().issue_cert("127.0.0.1"))
    context.maximum_version = version
    context.set_ecdh_curve(group)
    clients: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(20)
            server = Server(client, context)
            server.shake_hands()
            behave(server)

    def accept() -> None:
        with suppress(OSError):
            while True:
                clients.append(listener.accept()[0])
                threading.Thread(target=serve, args=clients[-1:], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for client in clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


class Inside(asyncio.Protocol):
    """Keeps what it receives and how the connection ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.eof = False
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


async def connected(network: Network, port: int) -> Inside:
    tls = TlsOptions(verify=False)
    _, inside = await Endpoint(network, "127.0.0.1", port, where="it", tls=tls).connect(Inside)
    return inside


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a server's thread may change it
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@on_uvloop
async def test_tiny_records_of_many_servers_never_block_the_loop(version: ssl.TLSVersion) -> None:
    """Each read brings thousands of records, from several servers at a time."""

    def flood(server: Server) -> None:
        for _ in range(3):
            server.send(b"x" * 8192, size=1)
        server.socket.recv(1)

    async def attack() -> None:
        network = Network()
        everybody = [await connected(network, port) for _ in range(CONNECTIONS)]
        await until(lambda: all(len(inside.received) == 3 * 8192 for inside in everybody))
        for inside in everybody:
            inside.transport.abort()

    with serving(flood, version) as port:
        await assert_iterations_are_short(attack)


@on_uvloop
async def test_a_costly_key_exchange_never_blocks_the_loop() -> None:
    """The server chooses its group, and ffdhe8192 takes 180 ms of CPU: in a thread."""

    def wait_for_end(server: Server) -> None:
        server.socket.recv(1)

    async def attack() -> None:
        inside = await connected(Network(), port)
        inside.transport.abort()

    with serving(wait_for_end, group="ffdhe8192") as port:
        await assert_iterations_are_short(attack)


@on_uvloop
async def test_tiny_records_that_follow_the_handshake_at_once_never_block_the_loop() -> None:
    """They may arrive while the last step of the handshake runs in a thread."""
    total = 16_384

    def flood(server: Server) -> None:
        server.send(b"x" * total, size=1)
        server.socket.recv(1)

    async def attack() -> None:
        inside = await connected(Network(), port)
        await until(lambda: len(inside.received) == total)
        inside.transport.abort()

    with serving(flood, ssl.TLSVersion.TLSv1_3, group="ffdhe8192") as port:
        await assert_iterations_are_short(attack)


@pytest.mark.parametrize("size", [1, 100, 16_384])
@on_uvloop
async def test_all_that_precedes_the_end_is_received_in_order(size: int) -> None:
    """Whatever the size of the records, and although the server closes at once."""
    content = bytes(i * 7 % 251 for i in range(min(size * 20_000, 3_000_000)))

    def send_and_close(server: Server) -> None:
        server.send(content, size=size)
        server.end()

    with serving(send_and_close) as port:
        inside = await connected(Network(), port)
        assert await inside.ended is None
        assert inside.eof
        assert bytes(inside.received) == content


@on_uvloop
async def test_nothing_is_read_while_the_protocol_inside_has_paused() -> None:
    """What the server sends meanwhile stays in the kernel, and arrives afterwards."""
    total = 32 * 1024 * 1024
    sent: list[int] = []

    def flood(server: Server) -> None:
        for _ in range(total // 65536):
            server.send(b"x" * 65536, size=16_384)
            sent.append(65536)
        server.socket.recv(1)

    with serving(flood) as port:
        inside = await connected(Network(), port)
        inside.transport.pause_reading()
        seen = -1
        while sum(sent) > seen:
            seen = sum(sent)
            await asyncio.sleep(0.3)
        assert len(inside.received) < total / 4
        assert seen < total
        inside.transport.resume_reading()
        await until(lambda: len(inside.received) == total)
        inside.transport.abort()


@on_uvloop
async def test_a_damaged_record_ends_the_connection_as_a_tls_failure() -> None:
    """Data before it is received."""

    def damage(server: Server) -> None:
        good = server.records(b"good", size=4)
        bad = bytearray(server.records(b"bad", size=3))
        bad[-1] ^= 1
        server.socket.sendall(good + bad)
        server.socket.recv(1)

    with serving(damage) as port:
        inside = await connected(Network(), port)
        error = await inside.ended
        assert bytes(inside.received) == b"good"
        assert isinstance(error, ssl.SSLError)
        failure = failure_from(error, "it")
        assert failure is not None
        assert failure.reason is Reason.TLS


@on_uvloop
async def test_what_is_sent_arrives_encrypted_and_whole() -> None:
    """More than the kernel buffers, so it is sent in several writes."""
    arrived: list[bytes] = []
    done = threading.Event()

    def collect(server: Server) -> None:
        total = 0
        while total < 3_000_000:
            try:
                arrived.append(server.tls.read(65536))
                total += len(arrived[-1])
            except ssl.SSLWantReadError:
                server._incoming.write(server.socket.recv(65536))
        done.set()

    with serving(collect) as port:
        inside = await connected(Network(), port)
        content = bytes(i % 253 for i in range(3_000_000))
        inside.transport.write(content)
        await until(done.is_set)
        assert b"".join(arrived) == content
        inside.transport.abort()


@pytest.mark.parametrize("longest", [2, 7, 40, 20_000])
def test_it_is_known_how_much_of_a_record_is_to_come_however_the_bytes_are_cut(longest: int) -> None:
    """Headers may be cut as well, and records may be empty."""
    draw = random.Random(longest)
    left, stream = [0], b""  # left[n]: what is to come of the record in which the first n bytes end
    for _ in range(200):
        size = draw.choice((0, 1, 4, 5, 6, 300, 16_384))
        stream += b"\x17\x03\x03" + size.to_bytes(2) + bytes(size)
        left += [0] * 4 + list(range(size, -1, -1))
    tls = ClientTls(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "localhost", asyncio.Protocol(), Pacer())
    at = 0
    while at < len(stream):
        data = stream[at : at + draw.randint(1, longest)]
        tls._follow_records(data)
        at += len(data)
        assert tls._record_left == left[at]


@pytest.mark.parametrize("size", [50, 500, 5_000])
@on_uvloop
async def test_an_answer_of_few_records_is_received_like_one_of_many(size: int) -> None:
    """At once or slice by slice: whole, in order, and before the end."""
    answers = [bytes(i * 11 % 251 for i in range(length)) for length in (4_200, 5_000, 7_900)]

    def send_and_close(server: Server) -> None:
        for answer in answers:
            server.send(answer, size=size)
        server.end()

    with serving(send_and_close) as port:
        inside = await connected(Network(), port)
        assert await inside.ended is None
        assert bytes(inside.received) == b"".join(answers)


@pytest.mark.parametrize("size", [0, 1, 300, 2_000, 5_000, 16_384])
def test_few_records_are_told_from_many(size: int) -> None:
    """Few are decrypted at once. The first may have begun before."""
    record = b"\x17\x03\x03" + size.to_bytes(2) + bytes(size)
    for begun in (0, 5):
        for count in range(1, 40):
            tls = ClientTls(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "localhost", asyncio.Protocol(), Pacer())
            tls._follow_records(record[:begun])
            data = (record * count)[begun:]
            headers = count - (begun > 0)
            assert tls._has_few_records(data) is (headers < 16 and len(data) <= 8192), (begun, count)
