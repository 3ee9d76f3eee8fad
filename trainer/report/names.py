"""Names on the page: short names of runs, which do not break, and names of validation images in words."""

import re
from collections.abc import Sequence

from markupsafe import Markup

SHORT_CHARS = 24
_SAMPLE = re.compile(r"(.+) \[(\d{1,9}), (\d{1,9}), (\d{1,9}), (\d{1,9})\]", re.DOTALL)


def shortened(names: Sequence[str]) -> list[str]:
    """Shorten long names in the middle, to SHORT_CHARS or as many more characters as keep distinct names distinct."""
    num_chars = SHORT_CHARS
    while True:
        short = [_shortened(name, num_chars) for name in names]
        if len(set(short)) == len(set(names)):
            return short
        num_chars += 1


def _shortened(name: str, num_chars: int) -> str:
    """Keep twice as much of the end as of the beginning: names of runs are often numbered."""
    return name if len(name) <= num_chars else f"{name[: num_chars // 3]}…{name[-(num_chars * 2 // 3 - 1) :]}"


def unbroken(full: str, short: str) -> Markup:
    """Return HTML of a short name in one line, with the full name as its title if it differs."""
    title = Markup(' title="{}"').format(full) if full != short else ""
    return Markup('<span class="run-name"{}>{}</span>').format(title, short)


def joined(names: Sequence[Markup]) -> Markup:
    return Markup(", ").join(names)


def sample_in_words(name: str) -> tuple[str, str]:
    """Return the path of a sample's photo, and in words which part of it HR shows; empty for other names.

    The name is `PATH [x, y, w, h]`, as `Shards.description` returns it, in px of the photo.
    """
    match = _SAMPLE.fullmatch(name)
    if match is None:
        return name, ""
    x, y, width, height = (int(number) for number in match.groups()[1:])
    return match[1], f"From the photo's crop of {part_in_words(x, y, width, height)}"


def part_in_words(x: int, y: int, width: int, height: int) -> str:
    """Return e.g. `1,080 x 1,080 px, 180 px from the left and 0 px from the top`."""
    return f"{width:,} \N{MULTIPLICATION SIGN} {height:,} px, {x:,} px from the left and {y:,} px from the top"
