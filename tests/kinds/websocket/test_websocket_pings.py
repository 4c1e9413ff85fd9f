"""Pings and pongs are what a WebSocket server expects."""

from connection_exporter.kinds.websocket.pings import PONG, ping, pong
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol


def test_a_server_answers_a_ping_with_its_payload() -> None:
    """The ping is masked, and its pong is not. No two pings are alike."""
    server = ServerProtocol(state=State.OPEN)
    payloads = set()
    for _ in range(100):
        sent, payload = ping()
        server.receive_data(sent)
        assert server.data_to_send() == [PONG + payload]
        payloads.add(payload)
    assert len(payloads) == 100


@given(st.binary(max_size=125))
def test_a_pong_has_the_payload_of_the_ping(payload: bytes) -> None:
    """A server unmasks it."""
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(pong(payload))
    assert server.events_received() == [Frame(Opcode.PONG, payload)]
