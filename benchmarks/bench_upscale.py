"""CPU time, memory and page faults of `python -m trainer upscale` on a CPU.

Photos of fixed sizes are made from the first real photos, and upscaled 4x with untrained networks, whose weights do not
change what the computation costs. Each case is one command, from the start of Python to the last byte written:

  ultra_lite, 2000 x 1500 px    one photo
  ultra_lite, 4000 x 3000 px    one photo
  ultra_lite, 20 x 500 px       20 photos of 500 x 500 px
  lite, 1000 x 750 px           one photo
  standard, 500 x 500 px        one photo

With `--against DIR`, a checkout of another version runs the same cases, in turn with this one. A result has the wall
time, the CPU time of the program (`user_s`) and of the kernel (`system_s`), the peak resident memory and the number of
page faults. Ratios are those of the total CPU time, the other version's over this one's, within each round: other
programs affect it less than the wall time.

    git worktree add ../before REVISION
    python -m benchmarks.bench_upscale --photos DIR --against ../before

With its defaults it takes about twenty minutes on two cores, most of it for `standard`; `--only` selects cases.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import click
from PIL import Image

from benchmarks.common import REPOSITORY, PhotoSet, RunFailedError, alternating, say, scratch_folder
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.report import print_table, spread, write_result
from trainer.models import network_spec
from trainer.models.weights import save_weights

_SCALE = 4
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Case:
    """A network and the photos that it upscales."""

    network: str
    width_px: int
    height_px: int
    count: int = 1

    @property
    def name(self) -> str:
        size = f"{self.width_px} x {self.height_px} px" if self.count == 1 else f"{self.count} x {self.width_px} px"
        return f"{self.network}, {size}"


CASES = (
    Case("ultra_lite", 2000, 1500),
    Case("ultra_lite", 4000, 3000),
    Case("ultra_lite", 500, 500, 20),
    Case("lite", 1000, 750),
    Case("standard", 500, 500),
)


def prepare(case: Case, photos: PhotoSet, folder: Path) -> None:
    """Write the case's photos and weights."""
    (folder / "photos").mkdir(parents=True)
    for number in range(case.count):
        with Image.open(photos.root / photos.paths[number % len(photos.paths)]) as photo:
            resized = photo.convert("RGB").resize((case.width_px, case.height_px), Image.Resampling.BICUBIC)
        resized.save(folder / "photos" / f"{number:02}.jpg", quality=_JPEG_QUALITY)
    save_weights(folder / "weights.pth", network_spec(case.network, _SCALE).build().state_dict(), None)


def measure(folder: Path, tree: Path, threads: int | None) -> dict[str, float]:
    """Upscale the folder's photos with the program in `tree`."""
    paths = (folder / "photos", "--weights", folder / "weights.pth", "--output", folder / "upscaled")
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    start_s = perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "upscale", *map(str, paths), "--device", "cpu"],
        cwd=folder,  # not the repository, whose packages Python would import
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise RunFailedError(f"upscaling with the program in {tree} failed: exit code {code}")
    return {
        "wall_s": perf_counter() - start_s,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
        "page_faults": usage.ru_minflt,
    }


def summarise(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the spread of each figure by tree, and of the ratio of CPU times if there are two."""
    content: dict[str, Any] = {
        tree: {figure: spread([run[figure] for run in of_tree], 3) for figure in of_tree[0]}
        for tree, of_tree in runs.items()
    }
    if "against" in runs:
        times = {tree: [run["user_s"] + run["system_s"] for run in of_tree] for tree, of_tree in runs.items()}
        ratios = [before / now for before, now in zip(times["against"], times["this"], strict=True)]
        content["cpu_time_ratio"] = spread(ratios, 3)
    return content


def show(found: dict[str, Any]) -> None:
    rows = []
    for case, of_case in found.items():
        for tree in ("against", "this"):
            if tree in of_case:
                figures = (of_case[tree][name]["median"] for name in ("wall_s", "user_s", "system_s"))
                peak, faults = (of_case[tree][name]["median"] for name in ("peak_mb", "page_faults"))
                texts = (*(f"{figure:.1f}" for figure in figures), f"{peak:,.0f}", f"{faults:,.0f}")
                rows.append([f"{case}: {tree}", *texts])
    print_table("upscaling", ("case and version", "wall, s", "user, s", "system, s", "peak, MB", "page faults"), rows)


@benchmark
@photos_option
@rounds_option(3)
@click.option(
    "--against",
    type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
    help="Checkout of another version, measured in turn with this one.",
)
@click.option("--only", multiple=True, help="Cases whose names contain this text. May be repeated.")
@click.option("--threads", type=click.IntRange(min=1), show_default="number of CPUs", help="Threads of the network.")
@scratch_option("Folder for temporary files, about 200 MB.")
@output_option("upscale.json")
def main(
    photos: Path | None,
    rounds: int,
    against: Path | None,
    only: tuple[str, ...],
    threads: int | None,
    scratch: Path | None,
    output: Path,
) -> None:
    """Measure upscaling on a CPU.

    \b
    Example:
      python -m benchmarks.bench_upscale --photos photos --rounds 3 --only "ultra_lite, 2000"
    """
    photo_set = PhotoSet.of(photos)
    cases = [case for case in CASES if not only or any(text in case.name for text in only)]
    if not cases:
        raise click.UsageError(f"--only: no case has this text; the cases are {'; '.join(c.name for c in CASES)}")
    if against and not (against / "trainer" / "__main__.py").is_file():  # Python would take the installed version
        raise click.UsageError(f"--against {against}: expected a checkout of this project, with the package trainer")
    trees = {"this": REPOSITORY, **({"against": against} if against else {})}
    runs: dict[str, dict[str, list[dict[str, float]]]] = {case.name: {tree: [] for tree in trees} for case in cases}
    with scratch_folder(scratch) as folder:
        for case in cases:
            prepare(case, photo_set, folder / case.name)
        for number in range(rounds):
            say(f"round {number + 1}/{rounds}")
            for case in cases:
                for tree in alternating(list(trees), number):
                    runs[case.name][tree].append(measure(folder / case.name, trees[tree], threads))
        found = {name: summarise(of_case) for name, of_case in runs.items()}
        settings = {"scale": _SCALE, "rounds": rounds, "threads": threads, "against": against is not None}
        command = f"python -m benchmarks.bench_upscale --photos DIR --rounds {rounds}"
        command += " --against DIR" if against else ""
        write_result(output, command, folder, {"settings": settings, "cases": found})
    show(found)
    for name, of_case in found.items():
        if "cpu_time_ratio" in of_case:
            say(f"{name}: the other version takes {of_case['cpu_time_ratio']['median']:.2f} times the CPU time")


if __name__ == "__main__":
    main()
