"""Says where the access tokens of a service come from. `oauth2` is imported only for a service that needs them."""

from typing import TYPE_CHECKING

from connection_exporter.config.request import RequestConfig

if TYPE_CHECKING:
    from connection_exporter.kinds.oauth2 import TokenSource
    from connection_exporter.net import Network


def token_source(config: RequestConfig, network: "Network") -> "TokenSource | None":
    """Return where the tokens of a service come from, or ``None`` if it needs none."""
    if config.oauth2 is None:
        return None
    from connection_exporter.kinds.oauth2 import TokenSource  # noqa: PLC0415 - 2 ms: few services use OAuth

    return TokenSource(config.oauth2, network, config.proxy.proxy if config.proxy is not None else None)
