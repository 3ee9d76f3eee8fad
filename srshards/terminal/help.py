"""click commands and groups whose help fits narrow terminals."""

import shutil
from typing import Any

import click

_NARROW = 60  # columns: below this, descriptions are printed below their options


class HelpFormatter(click.HelpFormatter):
    """A help formatter that fits narrow terminals, with descriptions below their options."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        if width is None:
            width = max(min(shutil.get_terminal_size().columns, max_width or 80) - 2, 20)
        super().__init__(indent_increment, width)

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, 4 if self.width < _NARROW else col_max, col_spacing)


class _Context(click.Context):
    formatter_class = HelpFormatter


class Command(click.Command):
    """A command class for `@click.command(cls=Command)`."""

    context_class = _Context


class Group(click.Group):
    """A group class for `@click.group(cls=Group)`; its subcommands use these classes too."""

    context_class = _Context
    command_class = Command
    group_class = type
