"""The result of `evaluate` as text and as JSON."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from srshards.terminal.text import plural
from trainer.commands.tables import Group, table, values_group
from trainer.evaluation.results import SetResult
from trainer.evaluation.scores import Scores
from trainer.metrics_table import METRICS

SINGLE_NAME = "network"  # of the network if there is only one


class EvaluatedNetwork(NamedTuple):
    """An evaluated network: its name in tables, its weights file, and the name and scale of its architecture."""

    name: str
    weights: str
    model: str
    scale: int

    @property
    def description(self) -> str:
        return f"{self.weights} ({self.model}, {self.scale}x)"


def result_text(networks: Sequence[EvaluatedNetwork], sets: Sequence[SetResult], metrics: Sequence[str]) -> str:
    """Return the table of the means, grouped by set, and of several networks that of the images each version wins.

    The networks, and a single set of a single network, are named in the lines above.
    """
    is_single = len(networks) == len(sets) == 1
    titles = ["" if is_single else f"{one.name}, {_description(one)}" for one in sets]
    groups = [values_group(title, one.means(), metrics) for title, one in zip(titles, sets, strict=True)]
    parts = [_headline(networks, sets[0] if is_single else None), table(groups, metrics)]
    if len(networks) > 1:
        groups = [_wins_group(title, one.wins()) for title, one in zip(titles, sets, strict=True)]
        parts += ["", "Images on which bicubic or a network is better than all others:", table(groups, metrics)]
    return "\n".join(parts)


def _headline(networks: Sequence[EvaluatedNetwork], single: SetResult | None) -> str:
    if len(networks) > 1:
        return "\n".join(f"{one.name}: {one.description}" for one in networks)
    return networks[0].description + ("" if single is None else f" on {_description(single)}")


def _description(one: SetResult) -> str:
    return f"{one.data}, {plural(len(one.images), 'image')} at {one.scale}x"


def _wins_group(title: str, wins: Mapping[str, Mapping[str, int]]) -> Group:
    versions = next(iter(wins.values()))
    return Group(title, {name: [f"{counts[name]:,}" for counts in wins.values()] for name in versions})


def as_json(networks: Sequence[EvaluatedNetwork], sets: Sequence[SetResult], metrics: Sequence[str]) -> dict[str, Any]:
    """Return all results as plain data; values that JSON does not have are None: the PSNR of identical
    images, which is infinite, and metrics that are not defined for an image.

    For one network and one set, the result has the fields of earlier versions, too.
    """
    report: dict[str, Any] = {
        "networks": [one._asdict() for one in networks],
        "metrics": {name: {"higher_is_better": METRICS[name].higher_is_better} for name in metrics},
        "sets": [_set_as_json(one, len(networks) > 1) for one in sets],
    }
    if len(networks) == len(sets) == 1:
        images = [{"image": one["image"], **one["values"]} for one in report["sets"][0]["images"]]
        single = {"weights": networks[0].weights, "data": sets[0].data, "scale": sets[0].scale}
        report |= {**single, "mean": report["sets"][0]["mean"], "images": images}
    return report


def _set_as_json(one: SetResult, with_wins: bool) -> dict[str, Any]:
    images = [{"image": image.image, "values": _finite(image.versions)} for image in one.images]
    wins = {"wins": one.wins()} if with_wins else {}
    return {
        "name": one.name,
        "data": one.data,
        "scale": one.scale,
        "mean": _finite(one.means()),
        **wins,
        "images": images,
    }


def _finite(versions: Mapping[str, Scores]) -> dict[str, dict[str, float | None]]:
    return {
        version: {metric: value if isfinite(value) else None for metric, value in values.items()}
        for version, values in versions.items()
    }
