"""What the runs of `bench_gpu` come to: rates, ratios within each round, what is met and what is missed, the tables."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import click

from benchmarks.gpu_task import ONE_BATCH, OUR_WAYS, PLAIN, STREAM
from benchmarks.report import print_table, spread

MAX_DATA_WAIT = 0.01
MIN_OVER_PLAIN = 3.0
NOT_RUN = "there was no time left for it"


class Key(NamedTuple):
    """What a run is of."""

    model: str
    batch: int
    way: str


# By what they are of and by round: what a process printed.
Runs = dict[Key, dict[int, dict[str, Any]]]


def summarise(wanted: Sequence[Key], runs: Runs) -> dict[str, Any]:
    """Everything that the result holds of the runs so far."""
    good = [run for of_key in runs.values() for run in _good(of_key).values()]
    device = {name: good[0][name] for name in ("device", "torch", "cuda", "cudnn")} if good else {}
    plain = [key for key in wanted if key.way == PLAIN]
    return {
        "device": device,
        "ways": [_way(key, runs) for key in wanted],
        "over_plain_loop": [_over_plain(key, runs) for key in plain],
        "kernels": [_kernels(key, runs) for key in wanted if key.way == ONE_BATCH],
    }


def _good(of_key: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {number: run for number, run in of_key.items() if "failed" not in run}


def _rates(key: Key, runs: Runs) -> dict[int, float]:
    """Patches per second by round."""
    return {number: key.batch * run["steps"] / run["seconds"] for number, run in _good(runs.get(key, {})).items()}


def _way(key: Key, runs: Runs) -> dict[str, Any]:
    """A way's figures, or why there are none."""
    of_key = runs.get(key, {})
    good, failures = list(_good(of_key).values()), [run for run in of_key.values() if "failed" in run]
    found: dict[str, Any] = dict(key._asdict())
    if failures:
        found["failures"] = failures
    if not good:
        return {**found, "unavailable": failures[0]["failed"] if failures else NOT_RUN}

    def shares(name: str) -> dict[str, Any]:
        return spread([run[name] / run["seconds"] for run in good], 4)

    rates = _rates(key, runs)
    wait = shares("wait_s")
    if key.way != PLAIN:
        wait["met"] = wait["median"] <= MAX_DATA_WAIT
    found |= {
        "precision": good[0]["precision"],
        "patches_per_second": spread(list(rates.values()), 1),
        "step_ms": spread([1000 * run["seconds"] / run["steps"] for run in good], 3),
        "data_wait": wait,
        "taking_batches": shares("taking_s"),
        "steps": [run["steps"] for run in good],
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in good),
        "finite_loss": all(run["finite_loss"] for run in good),
    }
    if key.way in OUR_WAYS and (of_ceiling := _ratios(rates, _rates(key._replace(way=ONE_BATCH), runs))):
        found["of_ceiling"] = spread(of_ceiling, 3)
    return found


def _ratios(tops: Mapping[int, float], bottoms: Mapping[int, float]) -> list[float]:
    """Of the rounds that have both."""
    return [tops[number] / bottoms[number] for number in tops if number in bottoms]


def _over_plain(plain: Key, runs: Runs) -> dict[str, Any]:
    stream = plain._replace(way=STREAM)
    found = {"model": plain.model, "batch": plain.batch, "wanted": f"at least {MIN_OVER_PLAIN:g}"}
    ratios = _ratios(_rates(stream, runs), _rates(plain, runs))
    if not ratios:
        return {**found, "unavailable": "there is no round with both"}
    return {**found, "ratio": spread(ratios), "met": median(ratios) >= MIN_OVER_PLAIN}


def _kernels(key: Key, runs: Runs) -> dict[str, Any]:
    """Floor, kernels and step in ms, and the kernels that take most; or why there are none."""
    found: dict[str, Any] = {"model": key.model, "batch": key.batch}
    good = list(_good(runs.get(key, {})).values())
    if not good:
        return {**found, "unavailable": "the run with one batch failed, or there was no time left for it"}
    measured = [run["kernels"] for run in good]
    floors = [kernels["flops_per_step"] / kernels["matrix_flops_per_s"] for kernels in measured]
    found |= {
        "flops_per_step": measured[0]["flops_per_step"],
        "matrix_tflops_per_s": spread([kernels["matrix_flops_per_s"] / 1e12 for kernels in measured], 1),
        "floor_ms": spread([1000 * floor for floor in floors], 3),
        "floor_over_step": spread(
            [floor * run["steps"] / run["seconds"] for floor, run in zip(floors, good, strict=True)], 3
        ),
    }
    complete = [(floor, run) for floor, run in zip(floors, good, strict=True) if "kernel_s" in run["kernels"]]
    if not complete:
        return {**found, "unavailable": measured[0]["unavailable"]}

    def each(figure: Callable[[float, float, float], float]) -> dict[str, Any]:
        """Of the seconds of floor, kernels and step."""
        return spread(
            [figure(floor, run["kernels"]["kernel_s"], run["seconds"] / run["steps"]) for floor, run in complete], 3
        )

    return {
        **found,
        "kernel_ms": each(lambda floor, kernels, step: 1000 * kernels),
        "floor_over_kernels": each(lambda floor, kernels, step: floor / kernels),
        "kernels_over_step": each(lambda floor, kernels, step: kernels / step),
        "kernels_per_step": complete[0][1]["kernels"]["kernels_per_step"],
        "largest": complete[0][1]["kernels"]["largest"],
    }


def show(content: Mapping[str, Any]) -> None:
    """The tables on standard output."""
    settings = content["settings"]
    title = f"{content['device'].get('device', 'no device')}, {settings['workers']} workers, {settings['patch_px']} px"
    columns = (
        "network, batch, way",
        "patches/s",
        "step, ms",
        "waiting for data",
        "taking it",
        "of the ceiling",
        "memory, GB",
    )
    print_table(title, columns, [_way_row(way) for way in content["ways"]])
    for way in (way for way in content["ways"] if "unavailable" in way):
        click.echo(f"{way['model']}, {way['batch']}, {way['way']}: {_not_measured(way)}")
    for ratio in content["over_plain_loop"]:
        name = f"{ratio['model']}, batch {ratio['batch']}, stream over plain loop, wanted {ratio['wanted']}"
        click.echo(f"{name}: {_not_measured(ratio) or _text(ratio['ratio'], 2) + ' ' + _verdict(ratio['met'])}")
    of_kernels = ("network, batch", "floor, ms", "kernels, ms", "floor / kernels", "kernels / step", "kernels per step")
    print_table("Kernels of a step", of_kernels, [_kernel_row(kernels) for kernels in content["kernels"]])


def _way_row(way: Mapping[str, Any]) -> list[str]:
    name = f"{way['model']}, {way['batch']}, {way['way']}"
    if "unavailable" in way:
        return [name, "not measured", "", "", "", "", ""]
    wait = way["data_wait"]
    return [
        name,
        _text(way["patches_per_second"], 1),
        f"{way['step_ms']['median']:.2f}",
        f"{wait['median']:.2%} {_verdict(wait['met']) if 'met' in wait else ''}".strip(),
        f"{way['taking_batches']['median']:.2%}",
        f"{way['of_ceiling']['median']:.3f}" if "of_ceiling" in way else "",
        f"{way['peak_memory_bytes'] / 1e9:.2f}",
    ]


def _kernel_row(kernels: Mapping[str, Any]) -> list[str]:
    name = f"{kernels['model']}, {kernels['batch']}"
    floor = f"{kernels['floor_ms']['median']:.2f}" if "floor_ms" in kernels else ""
    if "unavailable" in kernels:
        return [name, floor, _not_measured(kernels), "", "", ""]
    figures = (f"{kernels[key]['median']:.2f}" for key in ("kernel_ms", "floor_over_kernels", "kernels_over_step"))
    return [name, floor, *figures, f"{kernels['kernels_per_step']:.0f}"]


def _not_measured(found: Mapping[str, Any]) -> str:
    return f"not measured: {found['unavailable']}" if "unavailable" in found else ""


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _text(values: Mapping[str, Any], digits: int) -> str:
    return f"{values['median']:,.{digits}f} ({values['min']:,.{digits}f}-{values['max']:,.{digits}f})"
