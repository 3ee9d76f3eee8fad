"""Text for the terminal: shell completion, suggestions, line wrapping, progress bars."""

import difflib
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem
from tqdm import tqdm

from srshards.terminal.streams import nonessential_output

_MIN_BAR = 10  # columns


def did_you_mean(word: str, known: Iterable[str], count: int = 1) -> str:
    """Suggest up to `count` of the closest known words, as a question; an empty string when none is close."""
    near = difflib.get_close_matches(word, list(known), count)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def plural(count: int, what: str) -> str:
    """Format a count with its noun: `1 photo`, `1,000 photos`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class Choice(click.Choice[str]):
    """A `click.Choice` whose error message suggests the closest choice."""

    def __init__(self, choices: Iterable[str]) -> None:
        super().__init__(tuple(choices))

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        refusal = super().get_invalid_choice_message(value, ctx)
        near = did_you_mean(str(value), self.choices)
        return f"{refusal} D{near[1:]}" if near else refusal


def complete_file(incomplete: str) -> list[CompletionItem]:
    """Return a completion item that lets the shell complete files and folders."""
    return [CompletionItem(incomplete, type="file")]


def complete_word(incomplete: str, known: Iterable[str]) -> list[CompletionItem]:
    """Return completion items for the known words with this prefix."""
    return [CompletionItem(word) for word in known if word.startswith(incomplete)]


def columns(stream: TextIO) -> int | None:
    """Return the width of the stream's terminal; None when it is not a terminal."""
    if not stream.isatty():
        return None
    if "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return os.get_terminal_size(stream.fileno()).columns or 80


def fitted(text: str, stream: TextIO) -> str:
    """Wrap the lines of a text to the terminal's width, only at spaces, so that no number is split."""
    width = columns(stream) or sys.maxsize
    return "\n".join(
        line
        if len(line) <= width
        else textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def say(text: str, err: bool = False) -> None:
    """Print a non-essential message, wrapped to the terminal. The command does not fail if it cannot be written."""
    with nonessential_output():
        click.echo(fitted(text, sys.stderr if err else sys.stdout), err=err)


def shows_bars() -> bool:
    """Return whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Bar(tqdm):  # type: ignore[misc]
    """A tqdm bar that fits narrow terminals: it drops the bar first, then one figure after another.

    `rate()` returns the items per second, 0 while they are unknown; None: tqdm measures them.
    """

    def __init__(self, *args: Any, rate: Callable[[], float] | None = None, **options: Any) -> None:
        self._rate = rate
        super().__init__(*args, **{"dynamic_ncols": True, "disable": not shows_bars(), **options})

    @property
    def format_dict(self) -> dict[str, Any]:
        """The arguments of `format_meter`."""
        return {**super().format_dict, **({"rate": self._rate()} if self._rate else {})}

    @staticmethod
    def format_meter(n: float, total: float | None, elapsed: float, ncols: int | None = None, **given: Any) -> str:
        """Return a line of at most `ncols` columns."""
        wide = str(tqdm.format_meter(n, total, elapsed, **{**given, "bar_format": "{l_bar}{r_bar}"}))
        if not total or ncols is None or len(wide) + _MIN_BAR <= ncols:
            return str(tqdm.format_meter(n, total, elapsed, ncols=ncols, **given))
        text = "{percentage:.0f}% {n_fmt}/{total_fmt}|{remaining} left|{rate_fmt}"
        figures = str(tqdm.format_meter(n, total, elapsed, **{**given, "bar_format": text, "postfix": None})).split("|")
        figures = [figure.strip() for figure in (*figures, *(given.get("postfix") or "").split(", ")) if figure]
        while len(figures) > 1 and len(", ".join(figures)) > ncols:
            figures.pop()
        return ", ".join(figures)[:ncols]
