"""Statistics of LR images by the built-in recipes and by the code that they follow, and a table of their distances.

Run in the environment of `make test-peers`, it prints the table for shards whose HR have 400 px:

    PYTHONPATH=tests/peers/stand_ins .venv-peers/bin/python tests/peers/degradation_runs.py SHARDS
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import simplejpeg
import torch
from lr_statistics import compare, describe
from published import SCALE, Pixels, RealEsrgan, bsrgan_light

import srshards
from shardgen.degradation.degrade import draw_variants
from shardgen.degradation.recipe import Recipe, degraded, parse_steps
from shardgen.degradation.recipe_file import load_recipe

Rows = list[dict[str, float]]

SMOOTH = ("realesrgan", '"upsampling": {"plain": 1.0}', '"upsampling": {"smooth": 1.0}')
UNIFORM_FACTORS = ("bsrgan-light", '"uniform": {"divisor": 1.0}', '"uniform": {"factor": 1.0}')


def published_realesrgan(hrs: Sequence[Pixels]) -> dict[str, Rows]:
    """Real-ESRGAN's code with two seeds, and with a real JPEG codec in the place of its approximation."""
    with tempfile.TemporaryDirectory() as folder:
        code = RealEsrgan(hrs, Path(folder))
        lrs = {"one": code.degrade(0), "other": code.degrade(1), "real JPEG": code.degrade(2, _plain_jpeg)}
    return {name: _rows(hrs, found) for name, found in lrs.items()}


def published_bsrgan_light(hrs: Sequence[Pixels]) -> dict[str, Rows]:
    """The code of the light variant of BSRGAN with two seeds."""
    return {name: _rows(hrs, bsrgan_light(hrs, seed)) for seed, name in enumerate(("one", "other"))}


def ours(recipe: Recipe, hrs: Sequence[Pixels]) -> Rows:
    """Our LR images by a recipe."""
    drawn = [draw_variants(recipe, 1, 0, str(number), (0, 0), len(hr), SCALE)[0] for number, hr in enumerate(hrs)]
    return _rows(hrs, [degraded(hr, steps) for hr, steps in zip(hrs, drawn, strict=True)])


def altered(name: str, old: str, new: str) -> Recipe:
    """Return a built-in recipe after a replacement in its JSON."""
    text = json.dumps(load_recipe(name).plain["steps"])
    assert old in text, old
    steps: Any = json.loads(text.replace(old, new))
    return Recipe(name, parse_steps(steps, name))


def one_thread() -> None:
    """More threads cost more than they gain on images of this size."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _plain_jpeg(image: Pixels, quality: int) -> Pixels:
    file = simplejpeg.encode_jpeg(image, quality, "RGB", "420")
    decoded: Pixels = simplejpeg.decode_jpeg(file, "RGB", fastupsample=True)
    return decoded


def _rows(hrs: Sequence[Pixels], lrs: Sequence[Pixels]) -> Rows:
    return [describe(hr, lr) for hr, lr in zip(hrs, lrs, strict=True)]


def _print_table(shards: str) -> None:
    one_thread()
    hrs = [sample.hr for sample in srshards.open(shards)]
    esrgan, bsrgan = published_realesrgan(hrs), published_bsrgan_light(hrs)
    esrgan_ours, bsrgan_ours = (ours(load_recipe(name), hrs) for name in ("realesrgan", "bsrgan-light"))
    columns = {
        "Real-ESRGAN twice": compare(esrgan["one"], esrgan["other"]),
        "`realesrgan`": compare(esrgan_ours, esrgan["one"]),
        "`realesrgan`, real JPEG": compare(esrgan_ours, esrgan["real JPEG"]),
        "`smooth`": compare(ours(altered(*SMOOTH), hrs), esrgan["one"]),
        "BSRGAN light twice": compare(bsrgan["one"], bsrgan["other"]),
        "`bsrgan-light`": compare(bsrgan_ours, bsrgan["one"]),
        "uniform factors": compare(ours(altered(*UNIFORM_FACTORS), hrs), bsrgan["one"]),
    }
    print(f"{len(hrs)} HR images\n\n| statistic | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name in esrgan["one"][0]:
        found = [column[name] for column in columns.values()]
        cells = [f"**{each.distance:.3f}**" if each.differs else f"{each.distance:.3f}" for each in found]
        print(f"| {name} | {' | '.join(cells)} |")
    lowest, highest = (
        [pick(each.critical for each in column.values()) for column in columns.values()] for pick in (min, max)
    )
    print(f"| critical | {' | '.join(f'{a:.3f} to {b:.3f}' for a, b in zip(lowest, highest, strict=True))} |")


if __name__ == "__main__":
    _print_table(sys.argv[1])
