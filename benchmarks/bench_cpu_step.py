"""Duration of a training step on a CPU: the trainer's, eager and compiled, compared with the same step written plainly.

Method: a fresh process repeats the step on one batch of noise, 4x, patches of 192 px. All cases run once per round. The
plain step has nn.PReLU, adds the upsampled input after the pixel shuffle, uses `Tensor.mean` and glibc's default
settings for memory; everything else is the trainer's (cpu_step_run.py). A round's time is the median of its steps. The
losses of the last step are published, too: plain and eager steps give the same weights, so their losses are equal up to
the order of the sum.

    python -m benchmarks.bench_cpu_step
"""

from pathlib import Path
from typing import Any

import click

from benchmarks.common import in_rounds, python_module, say, scratch_folder, timed_json
from benchmarks.cpu_step_run import PATCH_PX, SCALE
from benchmarks.options import OWN_NETWORKS, benchmark, output_option, rounds_option
from benchmarks.report import Ratio, print_table, ratio_row, spread, spread_text, write_result
from trainer.training.device import choose_device, choose_precision

_BATCH = {"ultra_lite": 16, "lite": 16, "standard": 2}  # 16 patches of `standard` take 15 seconds
_STEPS = {"ultra_lite": 40, "lite": 6, "standard": 2}
_TARGET = 1.4  # of `ultra_lite`


def cases(models: tuple[str, ...], compiled: bool) -> list[tuple[str, str]]:
    """Return the pairs of model and case; `standard` is not compiled, which takes minutes."""
    variants = ("plain", "eager", "compiled") if compiled else ("plain", "eager")
    return [(model, case) for model in models for case in variants if (model, case) != ("standard", "compiled")]


def summarise(model: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of a model's cases, from one run of each per round."""
    found: dict[str, Any] = {"batch": _BATCH[model], "steps": _STEPS[model]}
    for case, of_rounds in runs.items():
        found[case] = {
            "step_seconds": spread([_median(run["seconds"]) for run in of_rounds], 4),
            "cpu_seconds": spread([_median(run["cpu_seconds"]) for run in of_rounds], 4),
            "start_up_s": spread([run["start_up_s"] for run in of_rounds], 1),
            "page_faults": spread([run["page_faults"] for run in of_rounds], 0),
            "peak_bytes": max(run["peak_bytes"] for run in of_rounds),
            "losses": [run["loss"] for run in of_rounds],
        }
    for name in ("seconds", "cpu_seconds"):
        rates = {case: [1 / _median(run[name]) for run in of_rounds] for case, of_rounds in runs.items()}
        target = _TARGET if (model, name) == ("ultra_lite", "seconds") else None
        found[f"speed_up_in_{name}"] = [
            Ratio(f"{model}: {case} / plain, {name}", case, ("plain",), at_least=target).evaluate(rates)
            for case in runs
            if case != "plain"
        ]
    return found


def _median(values: list[float]) -> float:
    return float(spread(values, 6)["median"])


@benchmark
@rounds_option(3)
@click.option(
    "--model", "models", type=click.Choice(OWN_NETWORKS), multiple=True, default=OWN_NETWORKS, help="Networks."
)
@click.option("--compiled", is_flag=True, help="Also measure compiled steps, which requires a C++ compiler.")
@output_option("cpu_step.json")
def main(rounds: int, models: tuple[str, ...], compiled: bool, output: Path) -> None:
    """Compare training steps on the CPU with plain ones.

    \b
    Example:
      python -m benchmarks.bench_cpu_step --rounds 5 --model ultra_lite
    """
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {model: {} for model in models}
    for number, (model, case) in in_rounds(cases(models, compiled), rounds):
        run = timed_json(python_module("benchmarks.cpu_step_run", case, model, _BATCH[model], _STEPS[model]))
        runs[model].setdefault(case, []).append(run)
        say(f"round {number + 1}/{rounds}  {model}, {case}: {1000 * _median(run['seconds']):,.1f} ms per step")
    networks = {model: summarise(model, of_cases) for model, of_cases in runs.items()}
    threads = next(iter(runs[models[0]].values()))[0]["threads"]
    precision = str(choose_precision("auto", choose_device("cpu")))
    settings = {"scale": SCALE, "patch_px": PATCH_PX, "rounds": rounds, "threads": threads, "precision": precision}
    arguments = [f"--rounds {rounds}", *(f"--model {model}" for model in models if models != OWN_NETWORKS)]
    command = " ".join(["python -m benchmarks.bench_cpu_step", *arguments, *(["--compiled"] if compiled else [])])
    with scratch_folder(None) as folder:
        write_result(output, command, folder, {"settings": settings, "networks": networks})
    columns = ("network, step", "time per step, ms", "CPU time, ms", "page faults", "start-up, s")
    print_table(f"{SCALE}x, patches of {PATCH_PX} px, {threads} threads, {precision}", columns, _rows(networks))
    ratios = [ratio for found in networks.values() for ratio in found["speed_up_in_seconds"]]
    ratios += [ratio for found in networks.values() for ratio in found["speed_up_in_cpu_seconds"]]
    print_table("speed", ("ratio", "target", "result", ""), [ratio_row(ratio) for ratio in ratios])


def _rows(networks: dict[str, dict[str, Any]]) -> list[list[str]]:
    return [
        [
            f"{model}, {case}",
            spread_text(_milliseconds(found[case]["step_seconds"]), 1),
            spread_text(_milliseconds(found[case]["cpu_seconds"]), 1),
            spread_text(found[case]["page_faults"], 0),
            f"{found[case]['start_up_s']['median']:.1f}",
        ]
        for model, found in networks.items()
        for case in ("plain", "eager", "compiled")
        if case in found
    ]


def _milliseconds(seconds: dict[str, Any]) -> dict[str, float]:
    return {name: 1000 * seconds[name] for name in ("median", "min", "max")}


if __name__ == "__main__":
    main()
