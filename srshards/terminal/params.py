"""Types of options and arguments beyond click's own: addresses, files of this machine, numbers of bytes."""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from srshards.format import Address
from srshards.imaging.provenance import why_not
from srshards.storage.store import AddressError, local_path, parse_address
from srshards.terminal.sizes import parse_bytes
from srshards.terminal.text import complete_file


class AddressParam(click.ParamType[Address]):
    """A folder or file of this machine, or an address in a store: `./shards`, `s3://bucket/shards`."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return parse_address(value) if isinstance(value, str) else value
        except AddressError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


class LocalPath(click.ParamType[Path]):
    """A folder or file of this machine."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return local_path(ADDRESS.convert(value, param, ctx))
        except AddressError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


class FileToWrite(LocalPath):
    """A file of this machine that a command may write: not a folder, and nothing there but what it wrote itself.

    Said before the work, not after it. `program` is the command, `example` the usual name of its file.
    """

    def __init__(self, program: str, example: str) -> None:
        self._program, self._example = program, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder: name the file to write, e.g. {path / self._example}", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{path} is no ordinary file: name the file to write, e.g. {self._example}", param, ctx)
        if refusal := why_not(path, self._program):
            self.fail(refusal, param, ctx)
        return path


class ByteSize(click.ParamType[int]):
    """A number of bytes: `256MB`, `1GiB`, `1000000`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


ADDRESS, PATH, BYTE_SIZE = AddressParam(), LocalPath(), ByteSize()
