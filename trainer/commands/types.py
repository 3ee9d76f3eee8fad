"""Parameter types that only the trainer's command line uses."""

from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from srshards.errors import UsageError
from srshards.terminal.text import Choice, complete_file, complete_word, did_you_mean
from trainer.catalogue import NETWORKS, unknown_model
from trainer.evaluation.best import BestBy, parse_best
from trainer.evaluation.set_names import NamedSet, parse_set
from trainer.metrics_table import METRICS
from trainer.training.augment import AUGMENTATIONS, Augment, parse_augment
from trainer.training.schedule import parse_milestones


class ModelName(Choice):
    """The name of a network of the catalogue. It has too many for an error message."""

    def __init__(self) -> None:
        super().__init__(NETWORKS)

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return unknown_model(str(value))


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


class SetParam(click.ParamType[NamedSet]):
    """A named set of images, `Set5=photos/Set5`: a folder of HR photos or a shard folder."""

    name = "name=folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NamedSet:
        try:
            return parse_set(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


class BestParam(click.ParamType[BestBy]):
    """A metric and optionally a set: `lpips@Set5`."""

    name = "metric[@set]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BestBy:
        try:
            return parse_best(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_word(incomplete, METRICS)


class MetricNames(click.ParamType[tuple[str, ...]]):
    """Names of metrics, separated by commas: `psnr_y,lpips`."""

    name = "metrics"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if not isinstance(value, str):
            return tuple(value)
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
        if "" in names:
            self.fail(f"{value!r}: expected names of metrics, separated by commas, e.g. lpips,dists", param, ctx)
        for name in names:
            if name not in METRICS:
                near = did_you_mean(name, METRICS)
                self.fail(f"unknown metric {name!r}; {near or 'pass some of ' + ', '.join(METRICS)}", param, ctx)
        return names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in METRICS if name.startswith(last)]


class MilestonesParam(click.ParamType[tuple[float, ...]]):
    """Steps or shares of the run, separated by commas: `0.5,0.8`."""

    name = "milestones"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return parse_milestones(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)


class AugmentParam(click.ParamType[Augment]):
    """An augmentation and the share of the steps that use it: `cutblur:0.3`."""

    name = "name:share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Augment:
        try:
            return parse_augment(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_word(incomplete, (f"{name}:" for name in AUGMENTATIONS))


NAMED_SET, BEST, MILESTONES, AUGMENT = SetParam(), BestParam(), MilestonesParam(), AugmentParam()
