"""Format numbers and names for the page."""

from collections.abc import Iterable, Sequence

from shardgen.planning.sources import printable

TIMES = "\N{MULTIPLICATION SIGN}"


def short(name: str, length: int = 120) -> str:
    """Return a name on one line; the middle of a long one is replaced by an ellipsis."""
    text = printable(name)
    if len(text) <= length:
        return text
    return f"{text[: length // 3]}\N{HORIZONTAL ELLIPSIS}{text[length // 3 + 1 - length :]}"


def distinct(names: Iterable[str], length: int) -> list[str]:
    """Shorten each name, and number those that become equal."""
    seen: dict[str, int] = {}
    labels = []
    for name in names:
        label = short(name, length)
        seen[label] = seen.get(label, 0) + 1
        labels.append(f"{label} ({seen[label]})" if seen[label] > 1 else label)
    return labels


def decibels(value: float | None) -> str:
    return "\N{INFINITY} dB" if value is None else f"{value:.2f} dB"


def setting_rows(settings: dict[str, object]) -> Sequence[tuple[str, str]]:
    """Return (name, value) of the settings that are in use, as text."""
    return [
        (name.replace("_", " "), _value(value)) for name, value in settings.items() if value is not None and value != ""
    ]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else short(str(value), 600)
