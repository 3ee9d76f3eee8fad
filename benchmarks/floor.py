"""The bare floor: nothing but what the pixels cost.

Each process reads, decodes and resizes its share of the photos (every N-th), makes the triplets and writes their
pixels, one after the other, to a file of its own. No tar, no hash, no index, no manifest, no progress, no statistics,
no queue. With `--decoder shardgen` the pixels come from the very functions that the generator calls; with `--decoder
opencv` from what people write first: cv2.imread, area averaging to the HR size, cubic down and up.

Processes are forked, the cheapest start there is: NumPy and OpenCV are imported once, by the parent.

Two clocks. The whole command, which the caller takes: interpreter, imports, listing, work. `work_s`, which this prints:
from before the processes are started until the last has handed in its times, which is what the generator calls
`wall_time` too (its workers' imports fall into it, the floor's do not: the floor is to be hard to reach). What the work
ends with is named by `--sink`:

  none        nothing is written at all
  page-cache  the last write() has returned; the system still has the bytes in memory
  fsync       each process has flushed its file to the disk, as the generator flushes every shard

Command: python -m benchmarks.floor --photos DIR --output NEW_FOLDER --scales 4 --workers 2 --sink page-cache
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from shardgen.planning.config import Config
from shardgen.planning.sources import list_photos
from shardgen.shard.triplet import decode_reduced, hr_boxes, make_triplet, render_crop
from srshards.errors import PhotoError
from srshards.imaging.photo import read_bytes
from srshards.imaging.pixels import Pixels

SINKS = ("none", "page-cache", "fsync")
STAGES = ("read", "decode", "resize", "encode", "write")


class Laps:
    """Seconds by stage: each call books the time since the last one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last_s = perf_counter()

    def __call__(self, stage: str) -> None:
        now_s = perf_counter()
        self.seconds[stage] += now_s - self._last_s
        self._last_s = now_s


def generator_images(path: Path, config: Config, laps: Laps) -> Iterator[Pixels]:
    """HR, LR and `up` in every scale, as the generator makes them. PhotoError as there."""
    data = read_bytes(path)
    laps("read")
    photo = decode_reduced(data, config)
    laps("decode")
    for box in hr_boxes(photo, config):
        crop = render_crop(photo, box, config)
        for scale in config.scales:
            hr_size = config.hr_size(scale)
            triplet = make_triplet(crop.pixels[:hr_size, :hr_size], scale, config.method)
            laps("resize")
            yield from (triplet.hr, *triplet.lrs, triplet.up)


def opencv_images(path: Path, config: Config, laps: Laps) -> Iterator[Pixels]:
    """The same images by OpenCV alone (a truncated photo comes out half grey). Reading counts as decoding."""
    pixels = cv2.imread(str(path))
    laps("decode")
    if pixels is None:
        raise PhotoError("not an image")
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side]
    for scale in config.scales:
        size = config.hr_size(scale)
        hr = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
        lr = cv2.resize(hr, (size // scale, size // scale), interpolation=cv2.INTER_CUBIC)
        up = cv2.resize(lr, (size, size), interpolation=cv2.INTER_CUBIC)
        laps("resize")
        yield from (np.asarray(image, dtype=np.uint8) for image in (hr, lr, up))


IMAGES_BY_DECODER = {"shardgen": generator_images, "opencv": opencv_images}


def make_part(options: argparse.Namespace, paths: Sequence[str], output: Path) -> dict[str, float]:
    """One process's share. Its seconds by stage."""
    cv2.setNumThreads(0)
    config = Config(input=options.photos, output=options.output, scales=tuple(options.scales), size=options.size)
    images_of = IMAGES_BY_DECODER[options.decoder]
    laps = Laps()
    with nullcontext() if options.sink == "none" else open(output, "wb") as file:
        for path in paths:
            try:
                for image in images_of(options.photos / path, config, laps):
                    content = np.ascontiguousarray(image) if options.codec == "raw" else cv2.imencode(".png", image)[1]
                    laps("encode")
                    if file:
                        file.write(content.data)
                        laps("write")
            except PhotoError:  # the generator passes over it too
                continue
        if file and options.sink == "fsync":
            file.flush()
            os.fsync(file.fileno())
    laps("write")
    return laps.seconds


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All shares at once. Number of photos, seconds of the clock, seconds of the processes by stage."""
    paths = sorted(photo.path for photo in list_photos(options.photos).photos)
    options.output.mkdir(parents=True)
    start_s = perf_counter()
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("fork")) as executor:
        parts = [
            executor.submit(make_part, options, paths[number :: options.workers], options.output / f"part-{number}.raw")
            for number in range(options.workers)
        ]
        seconds = [part.result() for part in parts]
    work_s = perf_counter() - start_s
    totals = {stage: sum(part[stage] for part in seconds) for stage in STAGES}
    return {"photos": len(paths), "work_s": work_s, "seconds": totals}


def parse_arguments() -> argparse.Namespace:
    """The command line. argparse, because the floor shall not wait for more."""
    parser = argparse.ArgumentParser(
        description="The bare floor of making triplets.",
        epilog="Example: python -m benchmarks.floor --photos photos --output floor --workers 2",
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--scales", type=int, nargs="+", default=[4])
    parser.add_argument("--size", type=int, default=512, help="HR edge in px")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--decoder", choices=tuple(IMAGES_BY_DECODER), default="shardgen")
    parser.add_argument("--codec", choices=("raw", "png"), default="raw", help="png: cv2.imencode as it comes")
    parser.add_argument("--sink", choices=SINKS, default="page-cache")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(run(parse_arguments())))
