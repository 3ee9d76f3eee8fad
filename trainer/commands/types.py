"""Parameter types that only the trainer's command line uses."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from srshards.errors import UsageError
from srshards.terminal.text import Choice, complete_file, complete_word, did_you_mean
from trainer.catalogue import NETWORKS, unknown_model
from trainer.evaluation.best import parse_best
from trainer.evaluation.set_names import parse_set
from trainer.loss_table import LOSSES
from trainer.loss_terms import parse_term
from trainer.metrics_table import METRICS
from trainer.training.augment import AUGMENTATIONS, parse_augment
from trainer.training.config import GAN_LOSSES
from trainer.training.schedule import parse_milestones

Value = TypeVar("Value")


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


class Parsed(click.ParamType[Value]):
    """A text that `parse` converts. The message of its UsageError becomes that of the option.

    `name` is shown in help. `complete` returns the completion items for an incomplete text.
    """

    def __init__(
        self, name: str, parse: Callable[[str], Value], complete: Callable[[str], list[CompletionItem]]
    ) -> None:
        self.name = name
        self._parse = parse
        self._complete = complete

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Value:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except UsageError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return self._complete(incomplete)


def _parse_metrics(text: str) -> tuple[str, ...]:
    """Parse names of metrics, separated by commas: `psnr_y,lpips`. UsageError for anything else."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in names:
        raise UsageError(f"{text!r}: expected names of metrics, separated by commas, e.g. lpips,dists")
    for name in names:
        if name not in METRICS:
            near = did_you_mean(name, METRICS, 2)
            raise UsageError(f"unknown metric {name!r}; {near or 'pass some of ' + ', '.join(METRICS)}")
    return names


def _complete_metrics(incomplete: str) -> list[CompletionItem]:
    before = incomplete[: incomplete.rfind(",") + 1]
    return complete_word(incomplete, (before + name for name in METRICS))


def _one_of(known: Iterable[str]) -> Callable[[str], list[CompletionItem]]:
    return partial(complete_word, known=known)


NAMED_SET = Parsed("name=folder", parse_set, complete_file)
BEST = Parsed("metric[@set]", parse_best, _one_of(METRICS))
METRIC_NAMES = Parsed("metrics", _parse_metrics, _complete_metrics)
LOSS = Parsed("name[:weight][@start-stop]", parse_term, _one_of(LOSSES))
GAN = Parsed("name[:weight][@start-stop]", partial(parse_term, names=GAN_LOSSES), _one_of(GAN_LOSSES))
MILESTONES = Parsed("milestones", parse_milestones, lambda incomplete: [])
AUGMENT = Parsed("name:share", parse_augment, _one_of([f"{name}:" for name in AUGMENTATIONS]))
