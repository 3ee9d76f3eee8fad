"""What the command line accepts beyond the types that all commands share."""

from typing import Any, Literal

import click


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
