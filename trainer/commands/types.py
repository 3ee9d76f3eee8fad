"""What the command line accepts beyond click's own types."""

from pathlib import Path
from typing import Any, Literal

import click

from shardgen.format import Address
from shardgen.store import parse_address

PATH = click.Path(path_type=Path)


class AddressType(click.ParamType[Address]):
    """A folder of this machine, or an address in a store such as `s3://bucket/folder`."""

    name = "folder|address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        return parse_address(value) if isinstance(value, str) else value


ADDRESS = AddressType()


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
