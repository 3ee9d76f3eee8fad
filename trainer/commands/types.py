"""What the command line accepts beyond click's own types."""

import re
from pathlib import Path
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from srshards.format import Address
from srshards.storage.store import AddressError, parse_address, parse_path
from srshards.terminal.text import complete_file

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class AddressType(click.ParamType[Address]):
    """A folder of this machine, or one of a store: s3://bucket/folder."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # it is one already
        try:
            return parse_address(value)
        except AddressError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


class NumBytes(click.ParamType[int]):
    """A number of bytes, such as 200GB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(value).strip().upper())
        if match is None:
            self.fail(f"{value!r}: expected a number of bytes such as 200GB", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


class LocalPath(click.Path):
    """A folder or file of this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return parse_path(value) if isinstance(value, str) else value
        except AddressError as error:
            self.fail(str(error), param, ctx)


ADDRESS, PATH = AddressType(), LocalPath()


class Tile(click.ParamType[int | Literal["auto"] | None]):
    """`auto`, the edge of a tile in px, or 0 for the whole image at once (None)."""

    name = "auto|px"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["auto"] | None:
        if value == "auto":
            return "auto"
        try:
            size = int(value)
        except ValueError:
            size = -1
        if size < 0:
            self.fail(f"{value!r}: expected auto, a number of px such as 512, or 0 for no tiles", param, ctx)
        return size or None
