"""A PostgreSQL server that misbehaves."""

import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

MIB: Final = 1024 * 1024


def message(kind: str, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a message, with a wrong ``length`` if one is given."""
    return kind.encode() + struct.pack("!I", (4 + len(body)) if length is None else length) + body


def error(text: bytes, *, severity: bytes = b"ERROR", state: bytes = b"XX000") -> bytes:
    fields = {b"S": severity, b"V": severity, b"C": state, b"M": text}
    return message("E", b"".join(key + value + b"\0" for key, value in fields.items()) + b"\0")


def row(*values: bytes | None) -> bytes:
    body = struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return message("D", body)


def request(code: int, content: bytes = b"") -> bytes:
    """Return an authentication request."""
    return message("R", struct.pack("!I", code) + content)


def parameter(name: bytes, value: bytes) -> bytes:
    return message("S", name + b"\0" + value + b"\0")


OK: Final = request(0)
READY: Final = message("Z", b"I")
WELCOME: Final = OK + parameter(b"server_version", b"16.0") + READY
SELECTED: Final = row(b"1") + message("C", b"SELECT 1\0") + READY
SET: Final = message("C", b"SET\0") + READY
DEPTH: Final = message("2") + row(b"f", None, b"1", b"100") + message("C", b"SELECT 1\0") + READY


@dataclass
class Script:
    """What the server sends: at the login, in answer to each write of the client after it, and without being asked."""

    login: Iterable[bytes] = (WELCOME,)
    answers: Iterable[Iterable[bytes]] = ()
    unasked: Iterable[bytes] = ()
    size: int = 64 * MIB
    """Bytes after which the server stops sending."""
    sent: int = field(default=0, init=False)


class HostileServer:
    """A server in threads of its own, so that its CPU is not the event loop's."""

    def __init__(self, script: Script, *, tls: bytes = b"N") -> None:
        self.script = script
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port: int = self._socket.getsockname()[1]
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                connection, _ = self._socket.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        with connection, suppress(OSError):
            asked = self._read(connection)
            if asked[:8] == struct.pack("!II", 8, 80877103):
                connection.sendall(self._tls)
                if self._tls != b"N":
                    self._read(connection)
                    return
                self._read(connection)
            for part in self.script.login:
                self._send(connection, part)
                if 9 <= len(part) < 256 and part.startswith(b"R") and not part.startswith(OK):
                    self._read(connection)
            for answer in self.script.answers:
                self._read(connection)
                for part in answer:
                    self._send(connection, part)
            for part in self.script.unasked:
                self._send(connection, part)
            while not self._over.is_set():
                with suppress(TimeoutError):
                    if not connection.recv(65536):
                        return

    def _read(self, connection: socket.socket) -> bytes:
        while not self._over.is_set():
            with suppress(TimeoutError):
                return connection.recv(65536)
        raise OSError("the test is over")

    def _send(self, connection: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._over.is_set() or self.script.sent > self.script.size:
                raise OSError("the test is over")
            with suppress(TimeoutError):
                sent = connection.send(view)
                self.script.sent += sent
                view = view[sent:]


def endless(part: bytes) -> Iterator[bytes]:
    """Repeat ``part`` in blocks of about 256 KiB, as a flood arrives."""
    block = part * max(256 * 1024 // len(part), 1)
    while True:
        yield block
