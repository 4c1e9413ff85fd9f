"""A flood of bytes is parsed in slices, in order, while the event loop and other readers go on."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from connection_exporter.net.pacing import TURN, PacedProtocol, PacedReader, Pacer
from support.hostile import assert_iterations_are_short

FLOOD = bytes(range(256)) * 1024
SLICE = 256


class Parser(asyncio.Protocol):
    """Collects what it is given, and takes 0.2 ms of CPU for each slice."""

    def __init__(self, pacer: Pacer, *, costs: float = 0.0002) -> None:
        self.parsed = bytearray()
        self.slices: list[int] = []
        self.ended = asyncio.get_running_loop().create_future()
        self.reader = PacedReader(pacer, self.parse, slice_size=lambda: SLICE)
        self._costs = costs

    def parse(self, data: bytes) -> None:
        self.parsed += data
        self.slices.append(len(data))
        ends = time.thread_time() + self._costs
        while time.thread_time() < ends:
            pass

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.reader.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.reader.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.reader.finish(lambda: self.ended.set_result(len(self.parsed)))


@asynccontextmanager
async def server_sending(data: bytes) -> AsyncIterator[int]:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_everything_is_parsed_in_order_before_the_end_is_noted() -> None:
    """The end of the connection waits for what came before it."""
    loop = asyncio.get_running_loop()
    async with server_sending(FLOOD) as port:
        transport, parser = await loop.create_connection(
            lambda: Parser(Pacer(), costs=0.0), "127.0.0.1", port
        )
        assert await asyncio.wait_for(parser.ended, 20) == len(FLOOD)
        transport.close()
    assert bytes(parser.parsed) == FLOOD
    assert max(parser.slices) <= SLICE


async def test_a_parser_may_leave_a_part_of_its_slice_to_the_next_one() -> None:
    """A parser that counts frames, not bytes, stops where it has parsed enough of them."""
    loop, pieces, ended = asyncio.get_running_loop(), list[bytes](), asyncio.Event()

    def parse_seven_bytes(data: bytes) -> int:
        pieces.append(data[:7])
        return len(pieces[-1])

    class SevenAtATime(asyncio.Protocol):
        def __init__(self) -> None:
            self.reader = PacedReader(Pacer(), parse_seven_bytes, slice_size=lambda: SLICE)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.reader.connection_made(transport)

        def data_received(self, data: bytes) -> None:
            self.reader.data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.reader.finish(ended.set)

    for sent in (FLOOD[:SLICE], FLOOD[: 10 * SLICE + 3]):
        pieces.clear()
        ended.clear()
        async with server_sending(sent) as port:
            await loop.create_connection(SevenAtATime, "127.0.0.1", port)
            await asyncio.wait_for(ended.wait(), 10)
        assert b"".join(pieces) == sent
        assert all(len(piece) <= 7 for piece in pieces)


async def test_an_iteration_of_the_loop_is_bounded_however_many_floods_there_are() -> None:
    """Four floods share one turn: the loop is never held up for the sum of them."""
    loop, pacer = asyncio.get_running_loop(), Pacer()
    async with server_sending(FLOOD) as port:
        made = [await loop.create_connection(lambda: Parser(pacer), "127.0.0.1", port) for _ in range(4)]
        parsers = [parser for _, parser in made]
        await assert_iterations_are_short(lambda: asyncio.sleep(0.5), limit=5 * TURN)
        for transport, parser in made:
            parser.reader.discard()
            transport.abort()
        await asyncio.gather(*(parser.ended for parser in parsers))
    assert sum(len(parser.slices) for parser in parsers) > 20, "the floods were not parsed"


@pytest.mark.parametrize("seed", range(20))
async def test_what_is_parsed_at_once_is_what_is_parsed_in_turn(seed: int) -> None:
    """Whatever the sizes of reads, and however much of each slice the parser leaves to the next one."""
    rand = random.Random(seed)
    reads = [bytes(rand.randbytes(rand.choice((1, 7, SLICE, SLICE + 1, 3 * SLICE)))) for _ in range(20)]
    results = []
    for immediate in (True, False):
        parsed, ended, counts = bytearray(), asyncio.Event(), random.Random(seed)

        def parse(data: bytes, parsed: bytearray = parsed, counts: random.Random = counts) -> int | None:
            taken = counts.choice((None, len(data), counts.randint(1, len(data))))
            parsed += data[:taken]
            return taken

        reader = PacedReader(Pacer(), parse, slice_size=lambda: SLICE)
        reader.immediate = immediate
        for data in reads:
            reader.data_received(data)
        reader.finish(ended.set)
        await asyncio.wait_for(ended.wait(), 20)
        results.append(bytes(parsed))
    assert results == [b"".join(reads)] * 2


async def test_a_reader_that_raises_holds_up_no_other() -> None:
    """It must not, but the other services would wait for their turn without end."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    pacer, parsed, done = Pacer(), list[bytes](), asyncio.Event()

    def parse(data: bytes) -> None:
        parsed.append(data)
        if len(parsed) == 3:
            done.set()

    def fail(data: bytes) -> None:
        raise RuntimeError(data)

    for each in (fail, parse):
        PacedReader(pacer, each, slice_size=lambda: 1).data_received(b"abc")
    async with asyncio.timeout(5):
        await done.wait()
    assert parsed == [b"a", b"b", b"c"]
    assert len(raised) == 1


async def test_a_reader_that_is_discarded_parses_nothing_more() -> None:
    """A caller who gives up a hostile server need not look at the rest of what it sent."""
    loop = asyncio.get_running_loop()
    async with server_sending(FLOOD) as port:
        transport, parser = await loop.create_connection(lambda: Parser(Pacer()), "127.0.0.1", port)
        while not parser.slices:  # noqa: ASYNC110 - it is the parser that is waited for
            await asyncio.sleep(0.001)
        parser.reader.discard()
        parsed = len(parser.parsed)
        transport.abort()
        await asyncio.wait_for(parser.ended, 5)
    assert len(parser.parsed) == parsed < len(FLOOD)


class Ending(PacedProtocol):
    """Notes when the other end has closed."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        super().__init__(Pacer())

    def _parse(self, data: bytes) -> None:
        raise AssertionError(data)

    def _slice_size(self) -> int:
        return SLICE

    def _end_of(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(exc)


class EndingByOwner(Ending):
    """Is closed by its owner."""

    _is_closed_by_owner = True


@pytest.mark.parametrize("protocol", [Ending, EndingByOwner])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_end_is_noted_before_an_owner_closes_its_connection(
    protocol: type[Ending], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Without an owner that does so, the connection closes itself."""

    async def connect() -> None:
        async with server_sending(b"") as port:
            loop = asyncio.get_running_loop()
            transport, ending = await loop.create_connection(protocol, "127.0.0.1", port)
            assert await asyncio.wait_for(ending.ended, 5) is None
            await asyncio.sleep(0)
            assert transport.is_closing() is (protocol is Ending)
            transport.abort()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(connect())
