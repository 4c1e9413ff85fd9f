"""A token endpoint for client credentials (RFC 6749, section 4.4), and an API that accepts its tokens."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote_plus

from support.http_servers import Conversation, Server, Talk, reply, serving


@dataclass
class TokenServer:
    """A token endpoint. It accepts the secret in the header, the body, or both, according to ``accepts``."""

    server: Server = field(default_factory=Server)
    client_id: str = "monitoring"
    secret: str = "sesame-open-42"
    accepts: tuple[str, ...] = ("header", "body")
    expires_in: object = 3600
    token_type: object = "Bearer"
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    issued: int = 0

    @property
    def url(self) -> str:
        return self.server.url("/oauth2/token")

    def config(self, **keys: object) -> dict[str, object]:
        """Return the key `oauth2` for this server."""
        given = {"token_url": self.url, "client_id": self.client_id, "client_secret": self.secret, **keys}
        return {key: value for key, value in given.items() if value is not None}

    async def talk(self, conversation: Conversation) -> None:
        while True:
            request = (await conversation.request()).decode()
            head, _, body = request.partition("\r\n\r\n")
            form = parse_qs(body)
            self.forms.append(form)
            await conversation.send(self._answer(head, form))

    def _answer(self, head: str, form: dict[str, list[str]]) -> bytes:
        given: list[tuple[str, str]] = []
        for line in head.split("\r\n"):
            if line.startswith("Authorization: Basic ") and "header" in self.accepts:
                name, _, secret = b64decode(line.split()[-1]).decode().partition(":")
                given.append((unquote_plus(name), unquote_plus(secret)))
        if "client_id" in form and "body" in self.accepts:
            given.append((form["client_id"][0], form.get("client_secret", [""])[0]))
        if given != [(self.client_id, self.secret)]:
            error = {"error": "invalid_client", "error_description": f"no client with {given}"}
            return reply(json.dumps(error), "401 Unauthorized", "Content-Type: application/json")
        self.issued += 1
        token = f"t0ken-number-{self.issued}-of-the-test"
        self.valid.add(token)
        answer = {"access_token": token, "token_type": self.token_type, "expires_in": self.expires_in}
        return reply(
            json.dumps({key: value for key, value in answer.items() if value is not None}),
            "200 OK",
            "Content-Type: application/json",
        )

    def api(self) -> Talk:
        """Return an API that answers 200 to a valid token, and otherwise 401."""

        async def talk(conversation: Conversation) -> None:
            while True:
                request = (await conversation.request()).decode()
                lines = [line for line in request.split("\r\n") if line.startswith("Authorization: ")]
                good = lines and lines[0].removeprefix("Authorization: Bearer ") in self.valid
                await conversation.send(reply("x") if good else reply("", "401 Unauthorized"))

        return talk


@asynccontextmanager
async def token_server(**options: object) -> AsyncIterator[TokenServer]:
    """Run a token endpoint on a free port of the loopback."""
    tokens = TokenServer(**options)  # type: ignore[arg-type]
    async with serving(tokens.talk) as server:
        tokens.server = server
        yield tokens


class SteppedClock:
    """A clock that moves only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now
