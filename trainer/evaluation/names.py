"""Short names of the networks that a comparison shows."""

from collections.abc import Sequence
from pathlib import Path

BICUBIC, HR = "bicubic", "HR"  # the other versions of an image, beside those of the networks


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return for each of several weights files the shortest part of its path that distinguishes it from the others.

    That is what remains without the folders that all begin with and the parts that all end with: `a` and `b` for
    runs/a/best.pth and runs/b/best.pth. A file in the first folder that differs keeps its name. ValueError if two
    paths are equal.
    """
    parts = [list(path.parts) for path in paths]
    if len(set(map(tuple, parts))) < len(parts):
        raise ValueError("expected different paths")
    starts = _num_equal(parts)
    ends = _num_equal([list(reversed(one[starts:])) for one in parts])
    while True:
        names = ["/".join(one[starts : len(one) - ends]) for one in parts]
        if not {"", BICUBIC, HR} & set(names) or starts == ends == 0:
            return names
        ends, starts = (ends - 1, starts) if ends else (0, starts - 1)


def _num_equal(lists: Sequence[Sequence[str]]) -> int:
    """Return the number of leading items that are equal in all lists."""
    count = 0
    for items in zip(*lists, strict=False):
        if len(set(items)) > 1:
            break
        count += 1
    return count
