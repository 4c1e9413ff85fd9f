"""Owns which pages may have a browser act here: our own, and those of the origins that were allowed.

A browser says by itself where a request comes from, and no page can change that. Whoever says nothing is no
browser, such as `curl`, and may act: to keep out more than pages is the business of passwords.
"""

from collections.abc import Collection

from starlette.datastructures import Headers


def may_act(headers: Headers, allowed: Collection[str]) -> bool:
    """Tell whether a request that changes something may be obeyed (as Go's CrossOriginProtection does).

    A proxy may have changed the Host: the word of the browser counts first, then our comparison.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and origin in allowed:
        return True
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == headers.get("host")
