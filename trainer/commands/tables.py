"""Tables of metrics for the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from srshards.terminal.text import columns
from trainer.evaluation.results import value_text
from trainer.metrics_table import METRICS

DEFAULT_METRICS = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
_GAP = "  "


class Group(NamedTuple):
    """Rows of a table below a title, which is empty for rows that need none: cells by the row's name."""

    title: str
    rows: Mapping[str, Sequence[str]]


def values_group(title: str, versions: Mapping[str, Mapping[str, float]], metrics: Sequence[str]) -> Group:
    """Return a row of formatted values per version."""
    return Group(
        title, {name: [value_text(metric, values[metric]) for metric in metrics] for name, values in versions.items()}
    )


def table(groups: Sequence[Group], metrics: Sequence[str]) -> str:
    """Return a table with a column per metric. On a terminal that is too narrow, its columns are below each other."""
    titles = [METRICS[metric].label for metric in metrics]
    limit = columns(sys.stdout)
    for num_parts in range(1, len(titles) + 1):
        size = -(-len(titles) // num_parts)
        parts = [slice(first, first + size) for first in range(0, len(titles), size)]
        tables = [_table(groups, titles, part) for part in parts]
        if limit is None or max(width for width, _ in tables) <= limit:
            break
    return "\n".join(line for _, lines in tables for line in lines)


def _table(groups: Sequence[Group], titles: Sequence[str], part: slice) -> tuple[int, list[str]]:
    """Return the width of the rows, and the lines of the table with these columns."""
    rows: list[tuple[str, Sequence[str]]] = [("", titles[part])]
    for group in groups:
        if group.title:
            rows.append((group.title, ()))
        indent = _GAP if group.title else ""
        rows += [(f"{indent}{name}", cells[part]) for name, cells in group.rows.items()]
    name_width = max(len(name) for name, cells in rows if cells)
    widths = [max(map(len, cells)) for cells in zip(*(cells for _, cells in rows if cells), strict=True)]
    lines = [
        f"{name:{name_width}}" + "".join(f"{_GAP}{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        if cells
        else name
        for name, cells in rows
    ]
    return name_width + sum(len(_GAP) + width for width in widths), lines
