"""Evaluation of the runs of `bench_gpu`: rates, ratios within each round, targets, tables."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import click

from benchmarks.gpu_task import ONE_BATCH, OUR_CASES, PLAIN, STREAM, WITH_ONE_BATCH
from benchmarks.report import print_table, spread, spread_text, verdict

MAX_DATA_WAIT = 0.01
MIN_OVER_PLAIN = 3.0
NOT_RUN = "no time left"


class Key(NamedTuple):
    """Network, batch size and case of a run."""

    model: str
    batch: int
    case: str


# What each process printed, by key and round.
Runs = dict[Key, dict[int, dict[str, Any]]]


def summarise(wanted: Sequence[Key], runs: Runs) -> dict[str, Any]:
    """Return the summary of the runs so far."""
    good = [run for of_key in runs.values() for run in _good(of_key).values()]
    device = {name: good[0][name] for name in ("device", "torch", "cuda", "cudnn")} if good else {}
    plain = [key for key in wanted if key.case == PLAIN]
    return {
        "device": device,
        "cases": [_case(key, runs) for key in wanted],
        "over_plain_loop": [_over_plain(key, runs) for key in plain],
        "kernels": [_kernels(key, runs) for key in wanted if key.case in WITH_ONE_BATCH],
    }


def _good(of_key: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {number: run for number, run in of_key.items() if "failed" not in run}


def _rates(key: Key, runs: Runs) -> dict[int, float]:
    """Return patches per second by round."""
    return {number: key.batch * run["steps"] / run["seconds"] for number, run in _good(runs.get(key, {})).items()}


def _case(key: Key, runs: Runs) -> dict[str, Any]:
    """Return a case's figures, or why there are none."""
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
    if key.case != PLAIN:
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
    if key.case in OUR_CASES:
        found["step_mode"] = good[0]["step_mode"]
        found["start_up_s"] = spread([run["start_up_s"] for run in good], 1)
    if key.case in OUR_CASES and (of_ceiling := _ratios(rates, _rates(key._replace(case=ONE_BATCH), runs))):
        found["of_ceiling"] = spread(of_ceiling, 3)
    return found


def _ratios(tops: Mapping[int, float], bottoms: Mapping[int, float]) -> list[float]:
    """Return the ratios of the rounds that have both."""
    return [tops[number] / bottoms[number] for number in tops if number in bottoms]


def _over_plain(plain: Key, runs: Runs) -> dict[str, Any]:
    stream = plain._replace(case=STREAM)
    found = {"model": plain.model, "batch": plain.batch, "target": f"at least {MIN_OVER_PLAIN:g}"}
    ratios = _ratios(_rates(stream, runs), _rates(plain, runs))
    if not ratios:
        return {**found, "unavailable": "no round has both"}
    return {**found, "ratio": spread(ratios), "met": median(ratios) >= MIN_OVER_PLAIN}


def _kernels(key: Key, runs: Runs) -> dict[str, Any]:
    """Return floor, kernels and step in ms, and the most expensive kernels; or why there are none."""
    found: dict[str, Any] = key._asdict()
    good = list(_good(runs.get(key, {})).values())
    if not good:
        return {**found, "unavailable": "the run with one batch failed, or no time was left"}
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
        """Return the spread of a figure of the seconds of floor, kernels and step."""
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
    """Print the tables."""
    settings = content["settings"]
    title = f"{content['device'].get('device', 'no device')}, {settings['workers']} workers, {settings['patch_px']} px"
    columns = (
        "network, batch, case",
        "patches/s",
        "step, ms",
        "waiting for data",
        "taking batches",
        "of the ceiling",
        "start-up, s",
        "memory, GB",
    )
    print_table(title, columns, [_case_row(case) for case in content["cases"]])
    for case in (case for case in content["cases"] if "unavailable" in case):
        click.echo(f"{case['model']}, {case['batch']}, {case['case']}: {_not_measured(case)}")
    for ratio in content["over_plain_loop"]:
        name = f"{ratio['model']}, batch {ratio['batch']}, stream over plain loop, target {ratio['target']}"
        click.echo(f"{name}: {_not_measured(ratio) or spread_text(ratio['ratio'], 2) + ' ' + verdict(ratio['met'])}")
    of_kernels = (
        "network, batch, case",
        "floor, ms",
        "kernels, ms",
        "floor / kernels",
        "kernels / step",
        "kernels per step",
    )
    print_table("Kernels of a step", of_kernels, [_kernel_row(kernels) for kernels in content["kernels"]])
    for kernels in (kernels for kernels in content["kernels"] if "unavailable" in kernels):
        click.echo(f"{kernels['model']}, {kernels['batch']}, {kernels['case']}, kernels: {_not_measured(kernels)}")


def _case_row(case: Mapping[str, Any]) -> list[str]:
    name = f"{case['model']}, {case['batch']}, {case['case']}"
    if "unavailable" in case:
        return [name, "not measured", "", "", "", "", "", ""]
    wait = case["data_wait"]
    return [
        name,
        spread_text(case["patches_per_second"], 1),
        f"{case['step_ms']['median']:.2f}",
        f"{wait['median']:.2%} {verdict(wait['met']) if 'met' in wait else ''}".strip(),
        f"{case['taking_batches']['median']:.2%}",
        f"{case['of_ceiling']['median']:.3f}" if "of_ceiling" in case else "",
        f"{case['start_up_s']['median']:.1f}" if "start_up_s" in case else "",
        f"{case['peak_memory_bytes'] / 1e9:.2f}",
    ]


def _kernel_row(kernels: Mapping[str, Any]) -> list[str]:
    name = f"{kernels['model']}, {kernels['batch']}, {kernels['case']}"
    floor = f"{kernels['floor_ms']['median']:.2f}" if "floor_ms" in kernels else ""
    if "unavailable" in kernels:
        return [name, floor, "", "", "", ""]
    figures = (f"{kernels[key]['median']:.2f}" for key in ("kernel_ms", "floor_over_kernels", "kernels_over_step"))
    return [name, floor, *figures, f"{kernels['kernels_per_step']:.0f}"]


def _not_measured(found: Mapping[str, Any]) -> str:
    return f"not measured: {found['unavailable']}" if "unavailable" in found else ""
