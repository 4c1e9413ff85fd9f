"""Kind postgresql: an answer that repeats the one before is not read again, and means the same."""

import asyncio
import random
from collections.abc import Sequence

from connection_exporter.core.health import Reason
from connection_exporter.kind import Failure
from connection_exporter.kinds.postgresql.check import PostgresqlCheck
from connection_exporter.kinds.postgresql.config import PostgresqlConfig
from connection_exporter.kinds.postgresql.hosts import Connector
from connection_exporter.kinds.postgresql.question import Question
from connection_exporter.kinds.postgresql.wire import Wire
from connection_exporter.net import Network
from support.postgresql_servers import (
    READY,
    SELECTED,
    SET,
    WELCOME,
    HostileServer,
    Script,
    error,
    message,
    parameter,
    row,
)

DONE = message("C", b"SELECT 1\0") + READY
PREPARED = message("1") + READY


def depth(connections: int) -> bytes:
    return message("2") + row(b"f", None, str(connections).encode(), b"100") + DONE


def config(server: HostileServer, **keys: object) -> PostgresqlConfig:
    given = {"kind": "postgresql", "host": "127.0.0.1", "port": server.port, **keys}
    return PostgresqlConfig.model_validate(given)


async def test_an_answer_is_read_anew_once_it_differs_wherever_it_is_cut() -> None:
    """Each answer comes three times, in two pieces that are cut after any byte."""
    length = len(SELECTED + depth(10))
    answers: list[Sequence[bytes]] = [[SET], [PREPARED]]
    for cut in range(length):
        answer = SELECTED + depth(10 + cut // 3)
        answers.append([answer[:cut], answer[cut:]])
    with HostileServer(Script(answers=answers)) as server:
        async with PostgresqlCheck(config(server), Network()).connect() as session:
            seen = [await session.probe() for _ in range(length)]
    assert [answer.details["connections"] for answer in seen] == [10 + cut // 3 for cut in range(length)]
    assert all(answer.reason is None for answer in seen)


async def test_an_error_between_two_equal_answers_is_not_overlooked() -> None:
    """Neither is a parameter that has changed in the meantime and changes back, nor what follows an answer."""
    good = parameter(b"server_version", b"16.0") + SELECTED
    answers = [
        [good],
        [good],
        [error(b"no") + READY],
        [good],
        [parameter(b"server_version", b"17.0") + SELECTED],
    ]
    with HostileServer(Script(answers=[*answers, [good], [good + DONE]])) as server:
        async with PostgresqlCheck(config(server, pooler=True), Network()).connect() as session:
            seen = [await session.probe() for _ in range(7)]
            ended = await session.lost
    assert [answer.reason for answer in seen] == [None, None, Reason.QUERY, None, None, None, None]
    versions = [answer.details["server_version"] for answer in seen]
    assert versions == ["16.0", "16.0", "16.0", "16.0", "17.0", "16.0", "16.0"]
    assert isinstance(ended, Failure)
    assert ended.reason is Reason.PROTOCOL


ANSWERS = [
    SELECTED,
    row(b"2") + DONE,
    row(None) + row(b"2") + DONE,
    message("n") + DONE,
    error(b"no") + READY,
    error(b"no") + error(b"not at all") + READY,
    message("N", b"M notice\0\0") + SELECTED,
    parameter(b"in_hot_standby", b"on") + SELECTED,
    parameter(b"in_hot_standby", b"off") + SELECTED,
    message("T", b"\0\1a\0" + bytes(6) + b"\0\0\0\x10" + bytes(8)) + row(b"t") + DONE,
    message("T", b"\0\1a\0" + bytes(6) + b"\0\0\0\x17" + bytes(8)) + row(b"t") + DONE,
    row(b"x" * 300) + DONE,
]


async def ask(wire: Wire, questions: Sequence[Question], reads: Sequence[bytes]) -> object:
    """Return what the wire makes of the answers in ``reads``."""
    asked = asyncio.create_task(wire.ask(*questions))
    await asyncio.sleep(0)
    for data in reads:
        wire.data_received(data)
    await asyncio.wait_for(asked, 5)
    answers = [question.answer for question in questions]
    return [(a.row, a.boolean, a.error) for a in answers], wire.parameters


async def test_what_is_kept_of_a_repeated_answer_is_what_would_be_read() -> None:
    """A question that was asked before and a new one get the same from any answers, however they are cut."""
    rand = random.Random(1)
    idle = [b"", b"", parameter(b"in_hot_standby", b"on"), message("N", b"M\0\0"), message("N", b"M\0\0")[:4]]
    with HostileServer(Script(login=[WELCOME])) as server:
        connector = Connector(config(server), Network())
        held, fresh = [(await connector.connect())[0].wire for _ in range(2)]
        kept = [Question(b"a", "a", columns=1), Question(b"b", "b", columns=1)]
        likely = [SELECTED, SELECTED]
        for _ in range(3000):
            new = [Question(b"a", "a", columns=1), Question(b"b", "b", columns=1)]
            likely = [answer if rand.random() < 0.6 else rand.choice(ANSWERS) for answer in likely]
            before = rand.choice(idle)
            answer = b"".join(likely)
            if len(before) == 4:
                answer = message("N", b"M\0\0")[4:] + answer
            cut = rand.choice([len(answer), rand.randrange(len(answer))])
            reads = [data for data in (answer[:cut], answer[cut:]) if data]
            for wire in (held, fresh):
                if before:
                    wire.data_received(before)
            assert await ask(held, kept, reads) == await ask(fresh, new, reads)
        held.close()
        fresh.close()
