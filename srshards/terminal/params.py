"""click parameter types: addresses, local paths, output files, sizes in bytes."""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from srshards.format import Address
from srshards.imaging.provenance import overwrite_refusal
from srshards.storage.store import AddressError, local_path, parse_address
from srshards.terminal.sizes import parse_bytes
from srshards.terminal.text import complete_file


class AddressParam(click.ParamType[Address]):
    """A local path or an object-store address: `./shards`, `s3://bucket/shards`."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        try:
            return parse_address(value) if isinstance(value, str) else value
        except AddressError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


class OneFolder(click.Option):
    """An option that names the one folder to read. Passed twice, it is refused: click would ignore the first folder."""

    def __init__(self, *args: Any, default: Any = None, **kwargs: Any) -> None:
        kwargs |= {"multiple": True, "default": () if default is None else (default,)}
        super().__init__(*args, **kwargs)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        values = super().process_value(ctx, value)
        if len(values) > 1:
            raise click.UsageError(
                f"{' and '.join(f'{self.opts[-1]} {value}' for value in values)}: pass one of them", ctx
            )
        return values[0] if values else None


class LocalPath(click.ParamType[Path]):
    """A local folder or file."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return local_path(ADDRESS.convert(value, param, ctx))
        except AddressError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


class FileToWrite(LocalPath):
    """A local file to write, checked before the work starts.

    It may not be `-`, a folder or a file that another program wrote.

    `program` is the command that writes it, `example` the usual file name.
    """

    def __init__(self, program: str, example: str) -> None:
        self._program, self._example = program, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if value == "-":
            advice = f"pass e.g. {self._example}, or ./- for a file of that name"
            self.fail(f"'-': expected a file, not standard output; {advice}", param, ctx)
        if path.is_dir() or str(value).endswith("/"):
            self.fail(f"{path} is a folder; pass the file to write, e.g. {path / self._example}", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{path} is not a regular file; pass the file to write, e.g. {self._example}", param, ctx)
        option = param.opts[-1] if param else "--output"
        if refusal := overwrite_refusal(path, self._program, option):
            self.fail(refusal, param, ctx)
        return path


class ByteSize(click.ParamType[int]):
    """A size in bytes: `256MB`, `1GiB`, `1000000`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


ADDRESS, PATH, BYTE_SIZE = AddressParam(), LocalPath(), ByteSize()
