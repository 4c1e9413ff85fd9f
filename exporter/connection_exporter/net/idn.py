"""Maps host names with any characters to ASCII as browsers do: UTS 46, non-transitional."""

import unicodedata
from typing import Final

import idna

_JOINERS: Final = "\u200c\u200d"
_RIGHT_TO_LEFT: Final = ("R", "AL", "AN")


def mapped(host: str) -> str:
    """Return a host name in ASCII. Raises UnicodeError, and IndexError for an empty label."""
    domain: str = idna.uts46_remap(host, std3_rules=False)
    return ".".join(_label(label, domain) for label in domain.split("."))


def _label(label: str, domain: str) -> str:
    """Return one mapped label in ASCII (UTS 46, section 4.1). Raises UnicodeError.

    The checks are those of browsers. Symbols such as emoji are valid, which IDNA 2008 alone would refuse.
    """
    if label.isascii():
        return label
    if label.startswith("xn--"):
        raise UnicodeError("an encoded label that is not ASCII")
    idna.check_initial_combiner(label)
    for position, character in enumerate(label):
        if character in _JOINERS and not idna.valid_contextj(label, position):
            raise UnicodeError("a joiner without anything to join")
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in domain):
        idna.check_bidi(label, check_ltr=True)
    return "xn--" + label.encode("punycode").decode("ascii")
