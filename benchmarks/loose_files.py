"""The usual script: cv2.imread, centre crop, resize, and three PNG files per photo with cv2.imwrite.

With `--workers 0` it runs in one process with OpenCV's own threads; otherwise in a multiprocessing.Pool without them,
because they would slow it down. PNG is written with imwrite's defaults, which are faster than its level 1. Nothing is
flushed to disk.

Clocks: the whole command, which the caller measures, and `work_s`, printed: from before the pool is started until it
has finished.

    python -m benchmarks.loose_files --photos DIR --output NEW_FOLDER --workers 2
"""

import argparse
import functools
import json
import multiprocessing
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2

from shardgen.planning.sources import list_photos


def convert(numbered: tuple[int, Path], output: Path, size: int, scale: int) -> None:
    """Write `output/NUMBER_hr.png`, `_lr.png` and `_up.png` of one photo."""
    number, path = numbered
    photo = cv2.imread(str(path))
    if photo is None:
        return
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = photo[top : top + side, left : left + side]
    hr = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    lr = cv2.resize(hr, (size // scale, size // scale), interpolation=cv2.INTER_CUBIC)
    up = cv2.resize(lr, (size, size), interpolation=cv2.INTER_CUBIC)
    for name, image in (("hr", hr), ("lr", lr), ("up", up)):
        cv2.imwrite(str(output / f"{number:06d}_{name}.png"), image)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Process all photos, or the first `--limit`; return their number and `work_s`."""
    paths = sorted(options.photos / photo.path for photo in list_photos(options.photos).photos)[: options.limit]
    options.output.mkdir(parents=True)
    convert_one = functools.partial(convert, output=options.output, size=options.size, scale=options.scale)
    start_s = perf_counter()
    if options.workers:
        with multiprocessing.get_context("fork").Pool(options.workers, cv2.setNumThreads, (0,)) as pool:
            pool.map(convert_one, list(enumerate(paths)))
    else:
        for numbered in enumerate(paths):
            convert_one(numbered)
    return {"photos": len(paths), "work_s": perf_counter() - start_s, "seconds": {}}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Write triplets as loose PNG files, as a typical short script does.",
        epilog="Example: python -m benchmarks.loose_files --photos photos --output loose --workers 2",
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--limit", type=int, help="number of photos, the first ones; default: all")
    parser.add_argument("--scale", type=int, default=4, help="2 to 8")
    parser.add_argument("--size", type=int, default=512, help="HR edge in px")
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 writes in this process")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(run(parse_arguments())))
