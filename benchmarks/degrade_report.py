"""Evaluation of `bench_degrade`: costs, limits, time saved in training, and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from benchmarks.degrade_stream import CASES, EIGHT_VARIANTS, ONLINE, RATIOS, SHARDS, Bench, epochs_to_break_even
from benchmarks.report import print_table, ratio_row, spread, spread_text, verdict

Found = Mapping[str, Any]
_MS = 3  # decimals; the fastest methods take hundredths of a millisecond


@dataclass(frozen=True)
class Limit:
    """Limit for the median over rounds of the median ms, in every measured scale and direction."""

    name: str
    at_most_ms: float


LIMITS = (Limit("matlab", 3), Limit("realesrgan", 60))


def summarise_costs(rounds: Sequence[Found]) -> list[dict[str, Any]]:
    """Return ms per image, and their division among steps, for every recipe and every method, scale and direction."""
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
        steps = {name: _summarise_step([cost["steps"].get(name, _UNUSED_STEP) for cost in costs]) for name in names}
        summary["steps"] = dict(sorted(steps.items(), key=lambda item: -item[1]["ms_per_lr"]["median"]))
    return summary


_UNUSED_STEP = {"times_per_lr": 0.0, "ms_each": 0.0, "ms_per_lr": 0.0}


def _summarise_step(steps: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {name: spread([step[name] for step in steps], _MS) for name in _UNUSED_STEP}


def check_limits(costs: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the verdict on every cost that has a limit."""
    return [
        {
            "name": _title(cost),
            "target": f"median at most {limit.at_most_ms:g} ms",
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
    """Return patches/s, the ratios of shards to online, the cost of generating shards, and when that pays off."""
    rates, photos = bench.rates(), len(bench.photos.paths)
    cases = {
        case.name: {
            "what": case.what,
            "patches_per_second": spread(rates[case.name], 1),
            "main_cpu": spread([run.main_cpu for run in bench.runs[case.name]], 2),
            "disk_bytes": max(run.disk_bytes for run in bench.runs[case.name]),
        }
        for case in CASES
    }
    generated = {}
    for case in SHARDS:
        made = bench.generated[case.name]
        generated[case.name] = {
            "command": "python -m shardgen generate " + " ".join(map(str, bench.generator(case))),
            "seconds": spread([each.seconds for each in made]),
            "photos_per_second": spread([photos / each.seconds for each in made], 1),
            "bytes_per_photo": round(made[-1].bytes / photos),
        }
    made_s = [each.seconds for each in bench.generated[EIGHT_VARIANTS.name]]
    epoch_s = {name: [photos / rate for rate in values] for name, values in rates.items()}
    paid_back = []
    for case in ONLINE:
        epochs = epochs_to_break_even(made_s, epoch_s[case.name], epoch_s[EIGHT_VARIANTS.name])
        paid_back.append(
            {
                "name": f"{EIGHT_VARIANTS.name}, against {case.name}",
                "epoch_seconds_online": spread(epoch_s[case.name]),
                "epoch_seconds_shards": spread(epoch_s[EIGHT_VARIANTS.name], _MS),
                "epochs": epochs and spread(epochs, 1),
            }
        )
    ratios = [ratio.evaluate(rates) for ratio in RATIOS]
    return {"cases": cases, "ratios": ratios, "generated": generated, "paid_back": paid_back}


def show(content: Found) -> None:
    """Print the tables."""
    costs = content["costs"]
    columns = ("method or recipe", "median, ms", "mean", "90 % within", "photos/s per core", "on CPU")
    print_table("One image, one thread: median (min-max) over rounds", columns, [_cost_row(cost) for cost in costs])
    for cost in costs:
        if "steps" in cost:
            rows = [_step_row(*item) for item in cost["steps"].items()]
            print_table(f"{cost['name']}", ("step", "times per LR", "ms each", "ms per LR"), rows)
    rows = [
        [each["name"], each["target"], spread_text(each["median_ms"], 2), verdict(each["met"])]
        for each in content["limits"]
    ]
    print_table("Limits", ("", "target", "ms", ""), rows)

    training = content["training"]
    rows = [[name, spread_text(case["patches_per_second"], 0)] for name, case in training["cases"].items()]
    print_table("Batches of aligned patches, LR input, no network", ("case", "patches/s"), rows)
    rows = [ratio_row(ratio) for ratio in training["ratios"]]
    print_table("Ratios within rounds", ("ratio of patches/s", "target", "measured", ""), rows)
    rows = [
        [
            name,
            spread_text(made["seconds"], 1),
            spread_text(made["photos_per_second"], 1),
            f"{made['bytes_per_photo'] / 1e6:.2f}",
        ]
        for name, made in training["generated"].items()
    ]
    print_table("Generating the shards, once", ("shards", "s", "photos/s", "MB/photo"), rows)
    for each in training["paid_back"]:
        after = (
            f"pays off after {spread_text(each['epochs'], 1)} epochs"
            if each["epochs"]
            else "nothing saved in one of the rounds"
        )
        click.echo(f"{each['name']}: {after}")


def _cost_row(cost: Found) -> list[str]:
    ms = [spread_text(cost[name], 2) for name in ("median_ms", "mean_ms", "p90_ms")]
    rate, cpu = (cost[name]["median"] for name in ("photos_per_second_per_core", "cpu"))
    return [_title(cost), *ms, f"{rate:,.0f}", f"{cpu:.0%}"]


def _step_row(name: str, step: Found) -> list[str]:
    return [name, *(spread_text(step[figure], 2) for figure in ("times_per_lr", "ms_each", "ms_per_lr"))]
