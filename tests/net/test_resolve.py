"""Names and addresses: an IP address needs no resolver."""

from ipaddress import IPv4Address, IPv6Address

from connection_exporter.net.resolve import _look_up, literal
from hypothesis import given
from hypothesis import strategies as st


@given(st.ip_addresses(), st.booleans())
def test_an_ip_address_is_what_the_resolver_would_return(
    address: IPv4Address | IPv6Address, exploded: bool
) -> None:
    """In any form that is written in full."""
    host = address.exploded if exploded else str(address)
    (ours,), (theirs,) = literal(host), _look_up(host, "any")
    assert type(address)(ours) == type(address)(theirs) == address
