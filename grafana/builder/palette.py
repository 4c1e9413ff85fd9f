"""Own the words, codes, colours and signs of every status; must not know of panels or queries.

The colours are told apart with protanopia, deuteranopia and tritanopia (a test simulates all
three), and each comes with a sign and a word, so that nothing rests on colour alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Json = dict[str, object]

HEALTHY = "#009E73"  # bluish green
UNHEALTHY = "#F0B429"  # amber
DISCONNECTED = "#C4320A"  # vermilion
CONNECTING = "#7CC7F5"  # sky blue
UNKNOWN = "#585862"  # slate

# Lines that carry no status: none of them may be mistaken for one.
FIRST = "#4477CC"  # blue
SECOND = "#CC79A7"  # purple
THIRD = "#B8B8C0"  # light grey
NEUTRAL = "#3A4A6B"  # dark blue, the background of plain figures


@dataclass(frozen=True, slots=True)
class Word:
    """One value of a closed set: the code in the metric, what is shown for it, and its colour."""

    code: int
    word: str
    sign: str
    colour: str

    @property
    def text(self) -> str:
        """Return what is shown: the sign, then the word."""
        return f"{self.sign} {self.word}"


STATUSES = (
    Word(0, "unknown", "?", UNKNOWN),
    Word(1, "healthy", "✓", HEALTHY),
    Word(2, "connecting", "↻", CONNECTING),
    Word(3, "unhealthy", "!", UNHEALTHY),
    Word(4, "disconnected", "✕", DISCONNECTED),
)
OVERALL = (
    Word(0, "unknown", "?", UNKNOWN),
    Word(1, "healthy", "✓", HEALTHY),
    Word(2, "degraded", "!", UNHEALTHY),
    Word(3, "partial", "✕", DISCONNECTED),
)
UP_DOWN = (Word(0, "down", "✕", DISCONNECTED), Word(1, "up", "✓", HEALTHY))
MONITORED = (Word(0, "not watching", "✕", DISCONNECTED), Word(1, "watching", "✓", HEALTHY))
RELOADED = (Word(0, "failed", "✕", DISCONNECTED), Word(1, "ok", "✓", HEALTHY))
PIPELINE = (Word(0, "silent", "✕", DISCONNECTED), Word(1, "alive", "✓", HEALTHY))
# Neither role is a fault of its own: `expect: {role: …}` says which is wanted.
POSTGRESQL_ROLE = (Word(0, "primary", "◆", FIRST), Word(1, "standby", "◇", SECOND))


def mappings(words: tuple[Word, ...]) -> list[Json]:
    """Return the Grafana value mappings of a closed set."""
    options: dict[str, object] = {
        str(word.code): {"text": word.text, "color": word.colour, "index": index}
        for index, word in enumerate(words)
    }
    return [{"type": "value", "options": options}]


def texts(values: Mapping[str, str]) -> list[Json]:
    """Return value mappings that only replace a value by a text."""
    options = {value: {"text": text, "index": n} for n, (value, text) in enumerate(values.items())}
    return [{"type": "value", "options": options}]


def not_measured(text: str = "n/a") -> list[Json]:
    """Return the mapping of NaN, which is what a mean over no sample gives."""
    return [{"type": "special", "options": {"match": "nan", "result": {"text": text, "index": 99}}}]


def steps(*values: tuple[float | None, str]) -> Json:
    """Return absolute thresholds; the first value is None, for everything below the second."""
    return {
        "mode": "absolute",
        "steps": [{"value": value, "color": colour} for value, colour in values],
    }
