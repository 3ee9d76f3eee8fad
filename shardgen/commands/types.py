"""What the command line accepts beyond the types that all commands share."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from shardgen.degradation.recipe_file import BUILT_IN
from srshards.terminal.help import Command
from srshards.terminal.text import complete_file, complete_word

# An option whose default is shown by --help.
option = functools.partial(click.option, show_default=True)


def complete_built_in(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The built-in recipes."""
    return complete_word(incomplete, BUILT_IN)


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The built-in recipes, else files."""
    return complete_built_in(ctx, param, incomplete) or complete_file(incomplete)


class FailureLimit(click.ParamType[str]):
    """`50` photos, or `2%` of them."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"\d+|(\d+(?:\.\d+)?)%", str(value))
        if not match or (match[1] and float(match[1]) > 100):
            self.fail(f"{value!r}: expected a number of photos such as 50, or a share such as 2%", param, ctx)
        return str(value)


def failure_limit(value: str | None, num_photos: int) -> int:
    """How many failed photos are tolerated; None is 1 % of the photos, but at least 10."""
    if value is None:
        return max(10, num_photos // 100)
    return int(float(value[:-1]) * num_photos / 100) if value.endswith("%") else int(value)


_SCALES = tuple("2345678")
_MORE_SCALES = "shardgen.more_scales"


class Scale(click.ParamType[tuple[int, ...]]):
    """One or more integers: `4`, or `2,3,4`."""

    name = "N"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_word(incomplete, _SCALES)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part for part in re.split(r"[,\s]+", str(value)) if part]
        if not parts or not all(re.fullmatch(r"[2-8]", part) for part in parts):
            self.fail(f"{value!r}: expected integers from 2 to 8, e.g. --scales 2 3 4", param, ctx)
        return tuple(int(part) for part in parts)


class SpaceSeparatedScales(Command):
    """Lets `-s 2 3 4` mean `-s 2 -s 3 -s 4`: everything up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = ("-s", "--scales")
        repeated = _repeat_option(args, names)
        ctx.meta[_MORE_SCALES] = repeated[-2:-1] and repeated[-2] in names
        return super().parse_args(ctx, repeated)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Another scale where one stands before, else options."""
        scales = complete_word(incomplete, _SCALES) if ctx.meta.get(_MORE_SCALES) else []
        return scales or super().shell_complete(ctx, incomplete)


def _repeat_option(args: Sequence[str], names: Sequence[str]) -> list[str]:
    rest, spread = list(args), []
    while rest:
        arg = rest.pop(0)
        values = []
        while arg in names and rest and not rest[0].startswith("-"):
            values.append(rest.pop(0))
        spread += [word for value in values for word in (arg, value)] or [arg]
    return spread
