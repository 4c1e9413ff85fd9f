"""Define the words, codes, colours and signs of every status; must not know panels or queries.

People with protanopia, deuteranopia or tritanopia can distinguish the colours; a test simulates all three.
Each colour comes with a sign and a word, so no information depends on colour alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Json = dict[str, object]

HEALTHY = "#009E73"  # bluish green
UNHEALTHY = "#F0B429"  # amber
DISCONNECTED = "#C4320A"  # vermilion
CONNECTING = "#7CC7F5"  # sky blue
UNKNOWN = "#585862"  # slate

# Lines that show no status; none of them looks like a status colour.
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
REPLICA = (*UP_DOWN, Word(2, "not a replica", "-", NEUTRAL))
CANARY = (*UP_DOWN, Word(2, "no canary", "-", NEUTRAL))
PROCESS = (
    Word(0, "not running", "✕", DISCONNECTED),
    Word(1, "running", "✓", HEALTHY),
    Word(2, "not a process", "-", NEUTRAL),
)
PIPELINE = (Word(0, "silent", "✕", DISCONNECTED), Word(1, "alive", "✓", HEALTHY))
# Neither role is a fault; `expect: {role: …}` says which one is required.
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


def not_measured(text: str = "n/a", colour: str = UNKNOWN) -> list[Json]:
    """Return the mapping of a missing value and of NaN, the mean over no samples.

    Without a colour of its own, a missing value takes the lowest threshold's: white, green or red.
    """
    result = {"text": text, "color": colour, "index": 99}
    return [{"type": "special", "options": {"match": "null+nan", "result": result}}]


def steps(*values: tuple[float | None, str]) -> Json:
    """Return absolute thresholds; the first value is None: everything below the second, and no value."""
    return {
        "mode": "absolute",
        "steps": [{"value": value, "color": colour} for value, colour in values],
    }
