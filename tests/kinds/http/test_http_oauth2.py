"""Kind http with access tokens: within the one deadline, replaced after a 401, and hidden."""

import json

import pytest
from connection_exporter.core.health import Reason, Status
from connection_exporter.kind import Failure
from connection_exporter.kinds import load_text
from connection_exporter.monitor import snapshot
from connection_exporter.monitor.monitor import Monitor
from support.http_servers import Conversation, answers, ask, attempt, check, reply, serving
from support.token_server import TokenServer, token_server


async def test_a_token_serves_many_probes_and_a_canary() -> None:
    """It belongs to the service, and not to a connection."""
    async with token_server() as tokens, serving(tokens.api()) as api:
        checked = check(api.url(), oauth2=tokens.config())
        async with checked.connect() as session:
            seen = [await session.probe() for _ in range(3)]
            seen.append(await attempt(checked))
        assert [observation.reason for observation in seen] == [None] * 4
        assert (tokens.issued, api.connections) == (1, 2)


async def test_a_revoked_token_is_replaced_within_the_probe() -> None:
    """The service is healthy, because a client that follows RFC 6749 gets its answer."""
    async with token_server(expires_in=None) as tokens, serving(tokens.api()) as api:
        async with check(api.url(), oauth2=tokens.config()).connect() as session:
            await session.probe()
            tokens.valid.clear()
            again = await session.probe()
        assert (again.reason, again.details["status_code"]) == (None, 200)
        assert (tokens.issued, len(api.requests), api.connections) == (2, 3, 1)


async def test_an_api_that_refuses_every_token_is_asked_twice_at_most() -> None:
    """The result is its 401; the next probe brings a new token."""
    refuses = answers(reply("", "401 Unauthorized"))
    async with token_server() as tokens, serving(refuses) as api:
        async with check(api.url(), oauth2=tokens.config()).connect() as session:
            seen = [await session.probe() for _ in range(3)]
        assert [observation.reason for observation in seen] == [Reason.AUTH] * 3
        assert (tokens.issued, len(api.requests)) == (3, 3)


async def test_another_host_gets_no_token() -> None:
    """Nor does its 401 cost us ours."""
    async with token_server() as tokens, serving(answers(reply("", "401 Unauthorized"))) as other:
        leads = answers(reply("", "302 Found", f"Location: {other.url(host='localhost')}"))
        async with serving(leads) as api:
            checked = check(api.url(), follow_redirects=True, oauth2=tokens.config())
            async with checked.connect() as session:
                for _ in range(2):
                    assert (await session.probe()).reason is Reason.AUTH
        assert b"Authorization" not in b"".join(other.requests)
        assert (tokens.issued, len(other.requests)) == (1, 2)


async def test_a_silent_token_endpoint_uses_up_the_deadline_of_the_attempt() -> None:
    """And the message says whose fault that is."""

    async def be_silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with serving(be_silent) as server, serving(answers(reply("x"))) as api:
        checked = check(api.url(), oauth2=TokenServer(server=server).config())
        with pytest.raises(Failure) as raised:
            await attempt(checked, timeout=0.5)
        assert api.requests == []
    assert raised.value.reason is Reason.TIMEOUT
    assert raised.value.message == f"token endpoint 127.0.0.1:{server.port} does not respond to the request"


async def test_a_refused_client_is_an_auth_failure_of_the_endpoint() -> None:
    """No request reaches the API."""
    async with token_server() as tokens, serving(answers(reply("x"))) as api:
        with pytest.raises(Failure) as raised:
            await ask(api.url(), oauth2=tokens.config(client_secret="wrong-secret"))
        assert api.requests == []
    assert raised.value.reason is Reason.AUTH
    assert raised.value.message.startswith(
        f"token endpoint 127.0.0.1:{tokens.server.port}: status 401, invalid_client"
    )


async def test_secrets_and_tokens_are_hidden_wherever_they_are_echoed() -> None:
    """By the API (a token) and by the token endpoint (the secret), in the JSON that is published."""

    async def echo(conversation: Conversation) -> None:
        while True:
            request = await conversation.request()
            line = next(line for line in request.split(b"\r\n") if line.startswith(b"Authorization"))
            await conversation.send(reply(json.dumps({"got": line.decode()})))

    async with token_server() as tokens, serving(echo) as api:

        async def published(secret: str) -> tuple[str, Status]:
            service = {
                "kind": "http",
                "url": api.url(),
                "oauth2": tokens.config(client_secret=secret),
                "expect": {"json": {"got": "nothing"}},
                "retries": 1,
                "canary": "off",
            }
            async with Monitor(load_text(json.dumps({"services": {"api": service}}))) as monitor:
                await monitor.force_check()
                record = monitor.board.record("api")
                return json.dumps(snapshot.with_transitions(record)), record.status

        good, status = await published(tokens.secret)
        assert status is Status.UNHEALTHY
        assert "Bearer [redacted]" in good
        assert "t0ken-number" not in good
        bad, status = await published("another-s3cret")
        assert status is Status.DISCONNECTED
        assert "no client with" in bad
        assert "another-s3cret" not in bad
