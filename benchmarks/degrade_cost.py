"""Cost of one LR image, in one process with one thread; prints one line of JSON.

    python -m benchmarks.degrade_cost HR_NPY ROUND DRAWS

`HR_NPY` contains N x 512 x 512 x 3 uint8 RGB images, loaded before any clock starts. The clock measures wall time of
one call with one image: `downsample` or `upsample` by a plain method; or, for a recipe, drawing its parameters and
applying them, without decoding or storing. A few images are processed first as a warm-up. Draws depend on the round
alone. Odd rounds go through methods and recipes in reverse order.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

import cv2
import numpy as np

from benchmarks.peers.task import SCALE
from shardgen.degradation.degrade import downsample
from shardgen.degradation.recipe import degraded
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from shardgen.degradation.rng import KeyedRng
from shardgen.degradation.step import Image, Parameters
from shardgen.degradation.steps import STEPS
from shardgen.planning.config import METHODS
from srshards.imaging.pixels import Pixels
from srshards.imaging.upsampling import upsample

MORE_SCALES = {"matlab": (2, 3)}  # beyond SCALE
DRAWING, REST = "(drawing)", "(to floats and back)"
_WARM_UP = 4

Found = dict[str, Any]


def main(hr_path: Path, round_number: int, draws: int) -> Found:
    """Measure all methods and recipes."""
    cv2.setNumThreads(0)
    hrs = list(np.load(hr_path))
    jobs: list[Callable[[], list[Found]]] = [
        *(
            partial(time_method, method, scale, hrs)
            for method in METHODS
            for scale in sorted((SCALE, *MORE_SCALES.get(method, ())))
        ),
        *(partial(time_recipe, name, hrs, round_number, draws) for name in BUILT_IN),
    ]
    found = [job() for job in (jobs if round_number % 2 == 0 else reversed(jobs))]
    return {"costs": [cost for several in found for cost in several]}


def time_method(method: str, scale: int, hrs: Sequence[Pixels]) -> list[Found]:
    """Time downsampling of each HR image, and upsampling of each LR image."""
    edge = hrs[0].shape[0] - hrs[0].shape[0] % scale
    parts = [np.ascontiguousarray(hr[:edge, :edge]) for hr in hrs]
    lrs = [downsample(part, scale, method) for part in parts]
    found = []
    for direction, images, work in (("shrink", parts, downsample), ("enlarge", lrs, upsample)):
        calls = [partial(work, image, scale, method) for image in images]
        warm_up(calls)
        found.append(_heading(method, direction, scale, edge) | _timed(calls))
    return found


def time_recipe(name: str, hrs: Sequence[Pixels], round_number: int, draws: int) -> list[Found]:
    """Time `draws` LR images of the HR images in turn, each with separately drawn parameters; in total and by step."""
    recipe, edge = load_recipe(name), hrs[0].shape[0]
    drawing_s: list[float] = []

    def make(number: int, hr: Pixels) -> None:
        rng = KeyedRng(round_number, name, number)
        start_s = perf_counter()
        drawn = recipe.draw(rng, (edge, edge), (edge // SCALE, edge // SCALE))
        drawing_s.append(perf_counter() - start_s)
        degraded(hr, drawn)

    calls = [partial(make, number, hr) for number, hr in enumerate(islice(cycle(hrs), draws))]
    warm_up(calls)
    drawing_s.clear()
    with steps_timed() as seconds:
        found = _timed(calls)
    steps = {step: _step(each, draws) for step, each in {**seconds, DRAWING: drawing_s}.items() if each}
    rest_ms = found["mean_ms"] - sum(step["ms_per_lr"] for step in steps.values())
    steps[REST] = {"times_per_lr": 1.0, "ms_each": rest_ms, "ms_per_lr": rest_ms}
    return [_heading(name, "recipe", SCALE, edge) | found | {"steps": steps}]


def warm_up(calls: Sequence[Callable[[], object]]) -> None:
    """Call the first few functions, untimed."""
    for work in calls[:_WARM_UP]:
        work()


@contextmanager
def steps_timed() -> Iterator[dict[str, list[float]]]:
    """Record the seconds of every step applied within the context, by its name."""
    seconds: dict[str, list[float]] = {name: [] for name in STEPS}
    before = dict(STEPS)
    STEPS.update({name: replace(step, apply=_with_clock(step.apply, seconds[name])) for name, step in before.items()})
    try:
        yield seconds
    finally:
        STEPS.update(before)


def _with_clock(
    apply: Callable[[Image, Parameters], Image], seconds: list[float]
) -> Callable[[Image, Parameters], Image]:
    def applied(image: Image, parameters: Parameters) -> Image:
        start_s = perf_counter()
        result = apply(image, parameters)
        seconds.append(perf_counter() - start_s)
        return result

    return applied


def _step(seconds: Sequence[float], draws: int) -> dict[str, float]:
    return {
        "times_per_lr": len(seconds) / draws,
        "ms_each": mean(seconds) * 1e3,
        "ms_per_lr": sum(seconds) / draws * 1e3,
    }


def _heading(name: str, direction: str, scale: int, edge: int) -> Found:
    return {"name": name, "direction": direction, "scale": scale, "hr_px": edge}


def _timed(calls: Sequence[Callable[[], object]]) -> Found:
    """Return ms per call, and `cpu`: the share of the time in which this process was running on a CPU."""
    ms = []
    cpu_s, begin_s = process_time(), perf_counter()
    for work in calls:
        start_s = perf_counter()
        work()
        ms.append((perf_counter() - start_s) * 1e3)
    cpu = (process_time() - cpu_s) / (perf_counter() - begin_s)
    return {
        "images": len(ms),
        "median_ms": median(ms),
        "mean_ms": mean(ms),
        "p90_ms": float(np.percentile(ms, 90)),
        "cpu": cpu,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))), flush=True)
