"""Parameter types and completions of shardgen's commands."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from shardgen.degradation.recipe_file import BUILT_IN
from srshards.format import FormatError, shard_of_key
from srshards.terminal.help import Command
from srshards.terminal.text import complete_file, complete_word

# `click.option` that shows the default in --help.
option = functools.partial(click.option, show_default=True)
no_up_option = option(
    "--no-up",
    is_flag=True,
    help="Omit the upsampled LR, a third to a half of the space; training computes it if needed.",
)


def complete_built_in(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the names of built-in recipes."""
    return complete_word(incomplete, BUILT_IN)


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete built-in recipes, or files where none matches."""
    return complete_built_in(ctx, param, incomplete) or complete_file(incomplete)


class SampleKey(click.ParamType[str]):
    """A sample's key: twelve digits, the first 0 (train) or 1 (val)."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            shard_of_key(value)
        except FormatError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class FailureLimit(click.ParamType[str]):
    """A number of photos (`50`) or a percentage of them (`2%`)."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"\d+|(\d+(?:\.\d+)?)%", str(value))
        if not match or (match[1] and float(match[1]) > 100):
            self.fail(f"{value!r}: expected a number of photos such as 50, or a percentage such as 2%", param, ctx)
        return str(value)


def failure_limit(value: str | None, num_photos: int) -> int:
    """Return the number of photos that may fail; None means 1 % of the photos, at least 10."""
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
    """A command whose `-s 2 3 4` means `-s 2 -s 3 -s 4`: the option takes all values up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = ("-s", "--scales")
        repeated = _repeat_option(args, names)
        ctx.meta[_MORE_SCALES] = repeated[-2:-1] and repeated[-2] in names
        return super().parse_args(ctx, repeated)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete another scale after a scale, otherwise options."""
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
