"""click commands and groups whose help is as narrow as the terminal."""

import shutil
from typing import Any

import click

_NARROW = 60  # columns from which on a description has room beside its option


class HelpFormatter(click.HelpFormatter):
    """click's, as narrow as the terminal is: there a description stands below its option."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        if width is None:
            width = max(min(shutil.get_terminal_size().columns, max_width or 80) - 2, 20)
        super().__init__(indent_increment, width)

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, 4 if self.width < _NARROW else col_max, col_spacing)


class _Context(click.Context):
    formatter_class = HelpFormatter


class Command(click.Command):
    """A command to declare with `@click.command(cls=Command)`."""

    context_class = _Context


class Group(click.Group):
    """A group to declare with `@click.group(cls=Group)`; what its decorators declare is of these classes too."""

    context_class = _Context
    command_class = Command
    group_class = type
