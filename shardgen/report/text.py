"""Figures and names as the page writes them."""

from collections.abc import Iterable, Sequence

from shardgen.planning.sources import printable

TIMES = "\N{MULTIPLICATION SIGN}"


def short(name: str, length: int = 120) -> str:
    """A name on one line, its middle left out where it is too long."""
    text = printable(name)
    if len(text) <= length:
        return text
    return f"{text[: length // 3]}\N{HORIZONTAL ELLIPSIS}{text[length // 3 + 1 - length :]}"


def distinct(names: Iterable[str], length: int) -> list[str]:
    """Each shortened; those that would be equal then are numbered."""
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
    """Settings in words, those that are not in use left out."""
    return [
        (name.replace("_", " "), _value(value)) for name, value in settings.items() if value is not None and value != ""
    ]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else short(str(value), 600)
