"""The bare floor: build triplets with only the cost of computing the pixels.

Each process reads, decodes and resizes its share of the photos (every N-th), builds the triplets and appends their
pixels to a separate file. No tar, hash, index, manifest, progress, statistics or queue. With `--decoder shardgen`, the
pixels are computed by the generator's functions; with `--decoder opencv`, by the usual calls: cv2.imread, area
averaging to the HR size, cubic down and up.

Processes are forked, which is the cheapest start: NumPy and OpenCV are imported once, by the parent.

Two clocks: the whole command (interpreter, imports, listing, work), which the caller measures; and `work_s`, printed:
from just before the processes are started until the last has returned its times. The generator's `wall_time` is the
same but includes its workers' imports, so the floor is strict. `--sink` selects the end of the work:

  none        nothing is written
  page-cache  the last write() has returned; the data may still be in memory
  fsync       each process has flushed its file to disk, as the generator flushes every shard

    python -m benchmarks.floor --photos DIR --output NEW_FOLDER --scales 4 --workers 2 --sink page-cache
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
    """Seconds by stage: each call adds the time since the previous call to a stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._last_s = perf_counter()

    def __call__(self, stage: str) -> None:
        now_s = perf_counter()
        self.seconds[stage] += now_s - self._last_s
        self._last_s = now_s


def generator_images(path: Path, config: Config, laps: Laps) -> Iterator[Pixels]:
    """Yield HR, LR and `up` at every scale, computed as by the generator. PhotoError as the generator raises it."""
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
    """Yield the same images by OpenCV alone, which accepts truncated photos. Reading counts as decoding."""
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


def process_part(options: argparse.Namespace, paths: Sequence[str], output: Path) -> dict[str, float]:
    """Process one share of the photos; return seconds by stage."""
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
            except PhotoError:  # skipped, as by the generator
                continue
        if file and options.sink == "fsync":
            file.flush()
            os.fsync(file.fileno())
    laps("write")
    return laps.seconds


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Process all shares in parallel; return the number of photos, `work_s`, and summed seconds by stage."""
    paths = sorted(photo.path for photo in list_photos(options.photos).photos)
    options.output.mkdir(parents=True)
    start_s = perf_counter()
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("fork")) as executor:
        parts = [
            executor.submit(
                process_part, options, paths[number :: options.workers], options.output / f"part-{number}.raw"
            )
            for number in range(options.workers)
        ]
        seconds = [part.result() for part in parts]
    work_s = perf_counter() - start_s
    totals = {stage: sum(part[stage] for part in seconds) for stage in STAGES}
    return {"photos": len(paths), "work_s": work_s, "seconds": totals}


def parse_arguments() -> argparse.Namespace:
    """Parse the command line, with argparse because importing click would count."""
    parser = argparse.ArgumentParser(
        description="Build triplets with only the cost of computing the pixels.",
        epilog="Example: python -m benchmarks.floor --photos photos --output floor --workers 2",
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--scales", type=int, nargs="+", default=[4], help="one or more of 2 to 8")
    parser.add_argument("--size", type=int, default=512, help="HR edge in px")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument(
        "--decoder", choices=tuple(IMAGES_BY_DECODER), default="shardgen", help="how photos are decoded"
    )
    parser.add_argument("--codec", choices=("raw", "png"), default="raw", help="png: cv2.imencode with its defaults")
    parser.add_argument("--sink", choices=SINKS, default="page-cache", help="where results are written, if at all")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(run(parse_arguments())))
