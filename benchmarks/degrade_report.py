"""What degradations cost, and what of it training pays: runs become figures, limits, and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from benchmarks.degrade_stream import MANY, ONLINE, RATIOS, SHARDS, TOUCH, WAYS, Bench, epochs_until_paid_back
from benchmarks.report import print_table, spread
from benchmarks.stream_ways import judge

Found = Mapping[str, Any]
_MS = 3  # decimals: the fastest methods take some hundredths of a millisecond


@dataclass(frozen=True)
class Limit:
    """What the median of the medians of a method or recipe may be, in every scale and direction that was measured."""

    name: str
    at_most_ms: float


LIMITS = (Limit("matlab", 3), Limit("realesrgan", 60))


def summarise_costs(rounds: Sequence[Found]) -> list[dict[str, Any]]:
    """Every method, scale and direction, and every recipe: ms per image in each round, and where they went."""
    by_key: dict[tuple[Any, ...], list[Found]] = {}
    for found in rounds:
        for cost in found["costs"]:
            by_key.setdefault(_key(cost), []).append(cost)
    return [_summarise_cost(costs) for costs in by_key.values()]


def _key(cost: Found) -> tuple[Any, ...]:
    return cost["name"], cost["direction"], cost["scale"]


def _summarise_cost(costs: Sequence[Found]) -> dict[str, Any]:
    first = costs[0]
    summary = {name: first[name] for name in ("name", "direction", "scale", "hr_px", "images")}
    summary |= {name: spread([cost[name] for cost in costs], _MS) for name in ("median_ms", "mean_ms", "p90_ms")}
    summary["photos_per_second_per_core"] = spread([1e3 / cost["mean_ms"] for cost in costs], 1)
    summary["cpu"] = spread([cost["cpu"] for cost in costs], 2)
    if "steps" in first:
        names = sorted({name for cost in costs for name in cost["steps"]})
        steps = {name: _summarise_step([cost["steps"].get(name, _NOT_TAKEN) for cost in costs]) for name in names}
        summary["steps"] = dict(sorted(steps.items(), key=lambda item: -item[1]["ms_per_lr"]["median"]))
    return summary


_NOT_TAKEN = {"times_per_lr": 0.0, "ms_each": 0.0, "ms_per_lr": 0.0}


def _summarise_step(steps: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {name: spread([step[name] for step in steps], _MS) for name in _NOT_TAKEN}


def judge_costs(costs: Sequence[Found]) -> list[dict[str, Any]]:
    """Each limit for all that it is about, by the median over the rounds of the median over the images."""
    return [
        {
            "name": _title(cost),
            "wanted": f"median at most {limit.at_most_ms:g} ms",
            "median_ms": cost["median_ms"],
            "met": cost["median_ms"]["median"] <= limit.at_most_ms,
        }
        for limit in LIMITS
        for cost in costs
        if cost["name"] == limit.name
    ]


def _title(cost: Found) -> str:
    if cost["direction"] == "recipe":
        return f"{cost['name']}, per LR"
    return f"{cost['name']}, {cost['direction']} {cost['scale']}x"


def summarise_training(bench: Bench) -> dict[str, Any]:
    """Patches/s, shards over online, what shards take to make and to store, and when that has paid for itself."""
    rates, photos = bench.rates(), len(bench.photos.paths)
    ways = {
        way.name: {
            "what": way.what,
            "patches_per_second": spread(rates[way.name], 1),
            "main_cpu": spread([run.main_cpu for run in bench.runs[way.name]], 2),
            "disk_bytes": max(run.disk_bytes for run in bench.runs[way.name]),
        }
        for way in WAYS
    }
    generated = {}
    for way in SHARDS:
        made = bench.generated[way.name]
        generated[way.name] = {
            "command": "python -m shardgen generate " + " ".join(map(str, bench.generator(way))),
            "seconds": spread([each.seconds for each in made]),
            "photos_per_second": spread([photos / each.seconds for each in made], 1),
            "bytes_per_photo": round(made[-1].bytes / photos),
        }
    made_s = [each.seconds for each in bench.generated[MANY.name]]
    epoch_s = {name: [photos / rate for rate in values] for name, values in rates.items()}
    paid_back = []
    for way in ONLINE:
        epochs = epochs_until_paid_back(made_s, epoch_s[way.name], epoch_s[MANY.name])
        paid_back.append(
            {
                "name": f"{MANY.name}, against {way.name}",
                "epoch_seconds_online": spread(epoch_s[way.name]),
                "epoch_seconds_shards": spread(epoch_s[MANY.name], _MS),
                "epochs": epochs and spread(epochs, 1),
            }
        )
    by_touch = {name: {TOUCH: values} for name, values in rates.items()}
    ratios = [judge(ratio, by_touch) for ratio in RATIOS]
    return {"ways": ways, "ratios": ratios, "generated": generated, "paid_back": paid_back}


def show(content: Found) -> None:
    """The tables on standard output."""
    costs = content["costs"]
    columns = ("method or recipe", "median, ms", "mean", "90 % within", "photos/s per core", "had a CPU")
    print_table("One image, one thread: median (min-max) over rounds", columns, [_cost_row(cost) for cost in costs])
    for cost in costs:
        if "steps" in cost:
            rows = [_step_row(*item) for item in cost["steps"].items()]
            print_table(f"{cost['name']}: where it goes", ("step", "times per LR", "ms each", "ms per LR"), rows)
    rows = [[each["name"], each["wanted"], _text(each["median_ms"], 2), _verdict(each)] for each in content["limits"]]
    print_table("Limits", ("what", "wanted", "ms", ""), rows)

    training = content["training"]
    rows = [[name, _text(way["patches_per_second"], 0)] for name, way in training["ways"].items()]
    print_table("Batches of aligned patches, LR input, no network", ("way", "patches/s"), rows)
    rows = [[each["name"], each["wanted"], _text(each["ratio"], 0), _verdict(each)] for each in training["ratios"]]
    print_table("Ratios within rounds", ("ratio of patches/s", "wanted", "found", ""), rows)
    rows = [
        [name, _text(made["seconds"], 1), _text(made["photos_per_second"], 1), f"{made['bytes_per_photo'] / 1e6:.2f}"]
        for name, made in training["generated"].items()
    ]
    print_table("Making the shards, once", ("shards", "s", "photos/s", "MB/photo"), rows)
    for each in training["paid_back"]:
        after = f"paid for after {_text(each['epochs'], 1)} epochs" if each["epochs"] else "one round saved nothing"
        click.echo(f"{each['name']}: {after}")


def _cost_row(cost: Found) -> list[str]:
    ms = [_text(cost[name], 2) for name in ("median_ms", "mean_ms", "p90_ms")]
    rate, cpu = (cost[name]["median"] for name in ("photos_per_second_per_core", "cpu"))
    return [_title(cost), *ms, f"{rate:,.0f}", f"{cpu:.0%}"]


def _step_row(name: str, step: Found) -> list[str]:
    return [name, *(_text(step[figure], 2) for figure in ("times_per_lr", "ms_each", "ms_per_lr"))]


def _verdict(judged: Found) -> str:
    return "met" if judged["met"] else "MISSED"


def _text(values: Found, digits: int) -> str:
    return f"{values['median']:,.{digits}f} ({values['min']:,.{digits}f}-{values['max']:,.{digits}f})"
