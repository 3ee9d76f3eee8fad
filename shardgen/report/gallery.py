"""Triplets to look at, few of many: from the lowest to the highest PSNR, and from as many classes as there are."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from markupsafe import escape

from shardgen.degradation.describe import format_step
from shardgen.report.survey import Measured, Survey, image_of
from shardgen.report.text import TIMES, decibels, short
from srshards.errors import RunError
from srshards.format import Manifest, lr_name
from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.imaging.window import strongest_window
from srshards.page.pictures import Comparison, Layer, exact

MAX_SHOWN = 24
_VARIANTS_TOLD = 8
_TEXT_BYTES = 2_000  # what a comparison takes beside its images and what is written about it, at most


def gallery(survey: Survey, max_bytes: int, window_px: int) -> list[Comparison]:
    """Comparisons of HR, LR and `up`, the lowest PSNR first, that together take at most `max_bytes` of the page.

    What is damaged is named in the survey and passed over.
    """
    chosen: list[tuple[float, str, Comparison]] = []
    for sample in spanning(survey.measured, MAX_SHOWN):
        try:
            comparison = _comparison(sample, survey.manifest, window_px)
        except RunError as error:
            survey.note(sample.sample, error)
            continue
        max_bytes -= _bytes_of(comparison)
        if max_bytes < 0:
            break
        chosen.append((_rank(sample), sample.sample.key, comparison))
    return [comparison for _, _, comparison in sorted(chosen, key=lambda one: one[:2])]


def _rank(sample: Measured) -> float:
    return math.inf if sample.psnr is None else sample.psnr  # none: `up` equals HR


def spanning(samples: Sequence[Measured], count: int) -> Iterator[Measured]:
    """Up to `count` samples, such that the first few span the PSNRs and the classes as well as all do.

    The lowest, the highest, the middle one, those between, and so on; near each of these places, one of the class that
    was taken least.
    """
    ordered = sorted(samples, key=lambda sample: (_rank(sample), sample.source, sample.sample.key))
    taken: set[int] = set()
    classes: Counter[str] = Counter()
    reach = max(len(ordered) // (2 * count), 1)
    for place in _places(count):
        aim = round(place * (len(ordered) - 1))
        near: list[int] = []
        width = 0 if place in (0.0, 1.0) else reach
        while not near and width <= len(ordered):
            around = range(max(aim - width, 0), min(aim + width + 1, len(ordered)))
            near = [rank for rank in around if rank not in taken]
            width += 1
        if near:
            best = min(near, key=lambda rank: (classes[ordered[rank].class_name], abs(rank - aim), rank))
            taken.add(best)
            classes[ordered[best].class_name] += 1
            yield ordered[best]


def _places(count: int) -> Iterator[float]:
    """0, 1, 1/2, 1/4, 3/4, 1/8, ... : `count` of them, each far from those before."""
    yield from (0.0, 1.0)[:count]
    for number in range(1, count - 1):
        digits = f"{number:b}"
        yield int(digits[::-1], 2) / 2 ** len(digits)


def _comparison(sample: Measured, manifest: Manifest, window_px: int) -> Comparison:
    stored = sample.sample.load()
    scale, described = manifest.scale, stored.describe()
    hr, lr = image_of(stored, "hr", manifest), image_of(stored, "lr", manifest)
    edge = min(window_px, hr.shape[0]) // scale * scale
    top, left = _most_detailed(hr, edge, scale)
    part = (slice(top, top + edge), slice(left, left + edge))
    small = tuple(slice(one.start // scale, one.stop // scale) for one in part)
    layers = [_layer("HR", hr[part]), _layer("LR", lr[small])]
    if manifest.has_up:
        layers.append(_layer("up", image_of(stored, "up", manifest)[part]))
    x, y, width, height = sample.box
    facts = [
        ("photo", short(sample.source, 300)),
        ("class, split", f"{short(sample.class_name)}, {sample.split}"),
        ("sample", sample.sample.key),
        ("part of the photo", f"{width} {TIMES} {height} px from {x}, {y}"),
        ("shown of HR", f"{edge} {TIMES} {edge} px from {left}, {top}"),
        ("PSNR of up", decibels(sample.psnr)),
        ("brightness", f"{sample.brightness:.3f}"),
        ("sharpness", f"{sample.sharpness:.2f}"),
        ("flat blocks", f"{100 * sample.flatness:.0f} %"),
        *([("aliasing", f"{sample.aliasing:.1f} grey levels")] if sample.aliasing is not None else []),
        *_degradations(described),
    ]
    return Comparison(
        id=f"sample-{scale}-{sample.sample.key}",
        title=short(sample.source, 60),
        width=edge,
        height=edge,
        layers=layers,
        caption=f"{decibels(sample.psnr)}, {short(sample.class_name, 40)}",
        facts=facts,
    )


def _degradations(described: dict[str, object]) -> Iterator[tuple[str, str]]:
    """What was done to HR: the method, or all that was drawn from the recipe, variant by variant."""
    drawn = described.get("degradation")
    if not isinstance(drawn, list):
        yield "LR made by", str(described["method"])
        return
    for variant, steps in enumerate(drawn[:_VARIANTS_TOLD]):
        yield lr_name(variant), "\n".join(format_step(step) for step in steps)[:2000]
    if len(drawn) > _VARIANTS_TOLD:
        yield (
            "more",
            f"{len(drawn) - _VARIANTS_TOLD} further variants: `python -m shardgen inspect --sample` lists them",
        )


def _layer(name: str, pixels: Pixels) -> Layer:
    return Layer(name, exact(np.ascontiguousarray(pixels)))


def _bytes_of(comparison: Comparison) -> int:
    titles = [comparison.title] * 8  # it stands beside each image, border and button as well
    facts = [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in comparison.facts]
    text = "".join([*map(escape, [*titles, comparison.caption]), *facts])
    return comparison.num_bytes + len(text.encode("utf-8", "backslashreplace")) + _TEXT_BYTES


def _most_detailed(hr: Pixels, edge: int, step: int) -> tuple[int, int]:
    """Top and left, multiples of `step`, of the square with the most energy of the Laplacian."""
    detail = cv2.Laplacian(luma_full_range(hr), cv2.CV_32F)
    return strongest_window(np.square(detail, dtype=np.float64), edge, edge, step)
