"""Owns what a client reads of HTTP/1.1, for whatever sends a request: the http and websocket kinds, proxies, tokens."""
