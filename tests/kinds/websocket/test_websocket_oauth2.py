"""Kind websocket with access tokens, which only the upgrade request needs."""

from http import HTTPStatus

from connection_exporter.core.health import Reason
from support.attempts import attempt, held
from support.token_server import TokenServer, token_server
from support.websocket_servers import check_of, serving
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response


class Gate:
    """Accepts an upgrade with a valid token."""

    def __init__(self, tokens: TokenServer) -> None:
        self.tokens = tokens
        self.requests = 0

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests += 1
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return None if token in self.tokens.valid else connection.respond(HTTPStatus.UNAUTHORIZED, "no")


async def test_the_upgrade_has_a_token_which_is_replaced_when_it_is_refused() -> None:
    """Within one attempt; the sessions share the token."""
    async with token_server() as tokens:
        gate = Gate(tokens)
        async with serving(process_request=gate) as port:
            check = check_of(port, oauth2=tokens.config())
            async with held(check) as (_, first):
                assert first.reason is None
            async with held(check) as (session, first):
                assert first.reason is None
                assert (tokens.issued, gate.requests) == (1, 2)
                tokens.valid.clear()
                assert (await session.probe()).reason is None
            async with held(check) as (_, first):
                assert first.reason is None
            assert (tokens.issued, gate.requests) == (2, 4)


async def test_a_server_that_refuses_every_token_is_asked_twice_at_most() -> None:
    """A new token that is refused is the result."""
    async with token_server() as tokens:
        gate = Gate(TokenServer())
        async with serving(process_request=gate) as port:
            check = check_of(port, oauth2=tokens.config())
            reasons = [(await attempt(check)).reason for _ in range(3)]
        assert reasons == [Reason.AUTH] * 3
        assert (tokens.issued, gate.requests) == (3, 3)


async def test_a_refused_client_is_an_auth_failure_of_the_endpoint() -> None:
    """No upgrade is requested."""
    async with token_server() as tokens:
        gate = Gate(tokens)
        async with serving(process_request=gate) as port:
            failure = await attempt(check_of(port, oauth2=tokens.config(client_secret="wrong")))
        assert gate.requests == 0
    assert failure.reason is Reason.AUTH
    assert failure.message.startswith("token endpoint 127.0.0.1:")
