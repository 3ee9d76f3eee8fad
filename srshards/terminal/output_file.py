"""The type of options that name a file to write."""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from srshards.format import Address
from srshards.imaging.provenance import why_not
from srshards.storage.store import AddressError, parse_address
from srshards.terminal.text import complete_file


class FileToWrite(click.ParamType[Path]):
    """A file of this machine that a command may write: not a folder, and nothing there but what it wrote itself.

    Said before the work, not after it. `program` is the command, `example` the usual name of its file.
    """

    name = "path"

    def __init__(self, program: str, example: str) -> None:
        self._program, self._example = program, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            path: Address = parse_address(value) if isinstance(value, str) else value
        except AddressError as error:
            self.fail(str(error), param, ctx)
        if not isinstance(path, Path):
            self.fail(f"{path} lies in a store; expected a path of this machine", param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder: name the file to write, e.g. {path / self._example}", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{path} is no ordinary file: name the file to write, e.g. {self._example}", param, ctx)
        if refusal := why_not(path, self._program):
            self.fail(refusal, param, ctx)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)
