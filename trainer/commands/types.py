"""Parameter types that only the trainer's command line uses."""

from typing import Any, Literal

import click


class Tile(click.ParamType[int | Literal["auto"] | None]):
    """`auto`, a tile edge in px, or 0 for no tiling (converted to None)."""

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
