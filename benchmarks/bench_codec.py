"""Size and cost of the codecs of shards, of HR images of 512 px from real photos and of drawings.

Each codec encodes every image, decodes it completely, and decodes random crops of 192 px from it: `png` and `webp` by
decoding all of it, `npy` by copying, `tlc` by decoding the tiles that the crop touches. `tlc, NumPy` is `tlc` without
the compiled core. Times are CPU times of one process with one thread, so that other processes on the machine affect
them less; the images are in memory. Drawings are flat shapes, lines and text with smooth edges, drawn by OpenCV; they
are simpler than real ones.

Each case runs in a fresh process, all once per round, in reverse order in every second round.

    python -m benchmarks.bench_codec --photos DIR
"""

from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from benchmarks.common import PhotoSet, in_rounds, python_module, say, scratch_folder, timed_json
from benchmarks.degrade_photo import open_hr
from benchmarks.options import benchmark, output_option, photos_option, rounds_option, scratch_option
from benchmarks.report import print_table, spread, write_result
from benchmarks.stream_stores import HR_PX
from srshards import native
from srshards.errors import PhotoError
from srshards.format import CODECS
from srshards.imaging.pixels import Pixels

WITHOUT_CORE = "tlc, NumPy"
_TIMES = ("encode_ms", "decode_ms", "crop_ms")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def cases() -> list[str]:
    measured = CODECS if native.is_available() else [name for name in CODECS if name != "tlc"]
    return [*measured, WITHOUT_CORE]


def read_hrs(photos: PhotoSet, count: int) -> Pixels:
    """Return the HR images of up to `count` photos, evenly spaced in the list."""
    taken = min(count, len(photos.paths))
    paths = [photos.root / photos.paths[number * len(photos.paths) // taken] for number in range(taken)]
    try:
        return np.stack([open_hr(path) for path in paths])
    except PhotoError as error:
        raise click.UsageError(f"one of the photos cannot be used: {error}") from error


def draw(number: int) -> Pixels:
    """Draw shapes, lines and text on a background, at twice the size, and reduce it."""
    rng = np.random.default_rng(number)

    def point() -> tuple[int, int]:
        x, y = rng.integers(0, 2 * HR_PX, 2).tolist()
        return x, y

    def colour() -> tuple[int, int, int]:
        red, green, blue = rng.integers(0, 256, 3).tolist()
        return red, green, blue

    canvas = np.full((2 * HR_PX, 2 * HR_PX, 3), colour(), np.uint8)
    for _ in range(10 * (1 + number % 6)):
        outline = rng.integers(2, 8)
        centre, axes = point(), tuple(rng.integers(10, 250, 2).tolist())
        cv2.ellipse(canvas, centre, axes, float(rng.integers(180)), 0, 360, colour(), -1, cv2.LINE_AA)
        cv2.ellipse(canvas, centre, axes, 0, 0, int(rng.integers(360)), (20, 20, 30), int(outline), cv2.LINE_AA)
        cv2.line(canvas, point(), point(), (20, 20, 30), int(outline), cv2.LINE_AA)
        cv2.putText(canvas, "sr-shards", point(), cv2.FONT_HERSHEY_SIMPLEX, 1.5, colour(), 3, cv2.LINE_AA)
    return cv2.resize(canvas, (HR_PX, HR_PX), interpolation=cv2.INTER_AREA).astype(np.uint8)


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return, by case, the size relative to the pixels, and the spread of each time over the rounds."""
    return {
        name: {"size": of_case[0]["size"], **{time: spread([run[time] for run in of_case], 3) for time in _TIMES}}
        for name, of_case in runs.items()
    }


@benchmark
@photos_option
@click.option("--count", type=click.IntRange(min=1), default=60, help="Number of photos, evenly spaced.")
@click.option("--drawings", type=click.IntRange(min=1), default=24, help="Number of drawings.")
@click.option("--crops", type=click.IntRange(min=1), default=10, help="Crops of each image in each round.")
@rounds_option(3)
@scratch_option("Folder for temporary files, about 100 MB.")
@output_option("codec.json")
def main(
    photos: Path | None, count: int, drawings: int, crops: int, rounds: int, scratch: Path | None, output: Path
) -> None:
    """Compare size and cost of the codecs of shards.

    \b
    Example:
      python -m benchmarks.bench_codec --photos photos
    """
    photo_set = PhotoSet.of(photos)
    result: dict[str, Any] = {"settings": {"hr_px": HR_PX, "crop_px": 192, "crops_per_image": crops}}
    with scratch_folder(scratch) as folder:
        contents = {"photos": read_hrs(photo_set, count), "drawings": np.stack([draw(n) for n in range(drawings)])}
        for kind, images in contents.items():
            path = folder / f"{kind}.npy"
            np.save(path, images)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in cases()}
            for number, name in in_rounds(cases(), rounds):
                core = {"SRSHARDS_NATIVE": "0"} if name == WITHOUT_CORE else {}
                command = python_module("benchmarks.codec_run", path, name.partition(",")[0], crops)
                runs[name].append(timed_json(command, {**_ONE_THREAD, **core}))
                say(f"{kind}, round {number + 1}, {name}: {runs[name][-1]}")
            result[kind] = {"images": len(images), "cases": summarise(runs)}
    write_result(output, "python -m benchmarks.bench_codec --photos DIR", output.parent, result)
    columns = ("codec", "size / pixels", "encode, ms", "decode, ms", "crop of 192 px, ms")
    for kind in contents:
        found = result[kind]["cases"].items()
        rows = [[name, f"{one['size']:.3f}", *(f"{one[time]['median']:.2f}" for time in _TIMES)] for name, one in found]
        print_table(f"{kind}, CPU time per image", columns, rows)


if __name__ == "__main__":
    main()
