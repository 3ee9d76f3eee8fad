"""The gallery: a selection of triplets that covers all PSNRs and classes."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

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
from srshards.page.pictures import Comparison, Layer, lossless_uri, photo_uri

MAX_SHOWN = 12
_MAX_VARIANTS_LISTED = 8
_TEXT_BYTES = 2_000  # upper bound of the markup of a comparison, without images and facts


def gallery(survey: Survey, max_bytes: int, window_px: int) -> list[Comparison]:
    """Return comparisons of HR, LR and `up`, lowest PSNR first, that take at most `max_bytes` of the page.

    Damaged samples are added to the survey's damages and skipped.
    """
    chosen: list[tuple[float, str, Comparison]] = []
    for sample in select_representative(survey.measured, MAX_SHOWN):
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
    return math.inf if sample.psnr is None else sample.psnr  # None: `up` equals HR


def select_representative(samples: Sequence[Measured], count: int) -> Iterator[Measured]:
    """Yield up to `count` samples, such that any first few of them cover the range of PSNRs and the classes.

    Sorted by PSNR, these are the first, the last, the middle one, those at a quarter and three quarters, and so on.
    Near each of these positions, a sample of the class selected least often is chosen.
    """
    ordered = sorted(samples, key=lambda sample: (_rank(sample), sample.source, sample.sample.key))
    selected: set[int] = set()
    classes: Counter[str] = Counter()
    reach = max(len(ordered) // (2 * count), 1)
    for fraction in _fractions(count):
        target = round(fraction * (len(ordered) - 1))
        near: list[int] = []
        width = 0 if fraction in (0.0, 1.0) else reach
        while not near and width <= len(ordered):
            around = range(max(target - width, 0), min(target + width + 1, len(ordered)))
            near = [rank for rank in around if rank not in selected]
            width += 1
        if near:
            best = min(near, key=lambda rank: (classes[ordered[rank].class_name], abs(rank - target), rank))
            selected.add(best)
            classes[ordered[best].class_name] += 1
            yield ordered[best]


def _fractions(count: int) -> Iterator[float]:
    """Yield the first `count` of 0, 1, 1/2, 1/4, 3/4, 1/8, ..., each far from the ones before."""
    yield from (0.0, 1.0)[:count]
    for number in range(1, count - 1):
        digits = f"{number:b}"
        yield int(digits[::-1], 2) / 2 ** len(digits)


def _comparison(sample: Measured, manifest: Manifest, window_px: int) -> Comparison:
    stored = sample.sample.load()
    scale, described = manifest.scale, stored.describe()
    hr, lr = image_of(stored, "hr", manifest), image_of(stored, "lr", manifest)
    edge = min(window_px, hr.shape[0]) // scale * scale
    top, left = most_detailed(hr, edge, scale)
    part = (slice(top, top + edge), slice(left, left + edge))
    small = tuple(slice(one.start // scale, one.stop // scale) for one in part)
    # LR is lossless: its pixels are magnified `scale` times as much as those of the others.
    layers = [_layer("HR", hr[part], photo_uri), _layer("LR", lr[small], lossless_uri)]
    if manifest.has_up:
        layers.append(_layer("up", image_of(stored, "up", manifest)[part], photo_uri))
    x, y, width, height = sample.box
    facts = [
        ("photo", short(sample.source, 300)),
        ("class, split", f"{short(sample.class_name)}, {sample.split}"),
        ("sample", sample.sample.key),
        ("part of the photo", f"{width} {TIMES} {height} px at {x}, {y}"),
        ("shown part of HR", f"{edge} {TIMES} {edge} px at {left}, {top}"),
        ("PSNR of up", decibels(sample.psnr)),
        ("brightness", f"{sample.brightness:.3f}"),
        ("sharpness", f"{sample.sharpness:.2f}"),
        ("flat blocks", f"{100 * sample.flatness:.0f}%"),
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
    """Yield how LR was derived: the method, or the drawn steps of each variant."""
    if "lr_source" in described:
        yield "LR, as given", short(str(described["lr_source"]), 300)
        return
    drawn = described.get("degradation")
    if not isinstance(drawn, list):
        yield "LR method", str(described["method"])
        return
    for variant, steps in enumerate(drawn[:_MAX_VARIANTS_LISTED]):
        yield lr_name(variant), "\n".join(format_step(step) for step in steps)[:2000]
    if len(drawn) > _MAX_VARIANTS_LISTED:
        yield (
            "more",
            f"{len(drawn) - _MAX_VARIANTS_LISTED} further variants: `python -m shardgen inspect --sample` lists them",
        )


def _layer(name: str, pixels: Pixels, encode: Callable[[Pixels], str]) -> Layer:
    return Layer(name, encode(np.ascontiguousarray(pixels)))


def _bytes_of(comparison: Comparison) -> int:
    titles = [comparison.title] * 8  # repeated for each image, border and button
    facts = [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in comparison.facts]
    text = "".join([*map(escape, [*titles, comparison.caption]), *facts])
    return comparison.num_bytes + len(text.encode("utf-8", "backslashreplace")) + _TEXT_BYTES


def most_detailed(hr: Pixels, edge: int, step: int) -> tuple[int, int]:
    """Return top and left, multiples of `step`, of the square with the greatest energy of the Laplacian."""
    detail = cv2.Laplacian(luma_full_range(hr), cv2.CV_32F)
    return strongest_window(np.square(detail, dtype=np.float64), edge, edge, step)
