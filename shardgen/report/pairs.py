"""The section on given pairs: how well LR matches HR, and the pairs that match worst."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardgen.pairs.check import PairCheck, main_finding, severity
from shardgen.pairs.summary import figures
from shardgen.report.cards import Photos
from shardgen.report.gallery import most_detailed
from shardgen.report.plots import histogram
from shardgen.report.survey import Measured, Survey, image_of
from shardgen.report.text import TIMES, short
from srshards.errors import RunError
from srshards.imaging.pixels import Pixels
from srshards.imaging.resample import resize
from srshards.page.pictures import Comparison, Layer, lossless_uri, photo_uri
from srshards.page.plots import Plot

MAX_SHOWN = 12
_MAX_BYTES = 1_500_000  # of all images of a page
_CERTAIN_PX = 0.1  # standard error of the displacements in the plot
_AMPLIFICATION = 4  # of the differences that are shown


@dataclass(frozen=True)
class WorstPair:
    """A pair to look at. `photo` is its number among the photos that can be excluded, None if it cannot be."""

    photo: int | None
    name: str
    comparison: Comparison
    is_beyond: bool  # a bound; the pair was accepted in spite of it


@dataclass(frozen=True)
class Pairs:
    """The section of a scale. `num_beyond` of `num_measured` pairs exceed a bound."""

    num_measured: int
    num_beyond: int
    num_uncertain: int  # pairs without enough detail to measure their displacement
    plots: Sequence[Plot]
    worst: Sequence[WorstPair]


def pairs_of(survey: Survey, photos: Photos, num_scales: int, window_px: int) -> Pairs | None:
    """Return the section about the pairs of a scale; None if LR was not given."""
    pairs = {sample.photo: (sample, sample.pair) for sample in reversed(survey.measured) if sample.pair is not None}
    if not pairs:
        return None
    checks = [check for _, check in pairs.values()]
    severities = {photo: severity(check) for photo, (_, check) in pairs.items()}
    certain = [check for check in checks if check.shift_error <= _CERTAIN_PX]
    worst = heapq.nsmallest(MAX_SHOWN, pairs, key=lambda photo: (-severities[photo], photo))
    return Pairs(
        num_measured=len(pairs),
        num_beyond=sum(one > 1 for one in severities.values()),
        num_uncertain=len(checks) - len(certain),
        plots=_plots(checks, certain),
        worst=_worst(survey, [pairs[photo] for photo in worst], photos, _MAX_BYTES // num_scales, window_px),
    )


def _plots(checks: Sequence[PairCheck], certain: Sequence[PairCheck]) -> list[Plot]:
    plots = []
    if certain:
        what = "Displacement of LR against HR by phase correlation, where HR has enough detail to measure it."
        lengths = [float(np.hypot(*check.shift)) for check in certain]
        plots.append(histogram("Displacement", what, "LR px", lengths, 0, 2, "pair"))
    what = "LR \u2212 HR: median over all pixels and channels."
    brightnesses = [check.brightness for check in checks]
    plots.append(histogram("Difference of brightness", what, "grey levels", brightnesses, 1, 1, "pair"))
    what = "The channel that differs most, beyond the difference of brightness."
    plots.append(histogram("Colour cast", what, "grey levels", [check.colour for check in checks], 3, 1, "pair"))
    if correlations := [check.correlation for check in checks if check.has_detail]:
        what = "Of the details of LR and HR, where HR has enough: low with much blur, noise or compression."
        plots.append(histogram("Correlation", what, "correlation", correlations, 2, 2, "pair"))
    return plots


def _worst(
    survey: Survey, pairs: Sequence[tuple[Measured, PairCheck]], photos: Photos, max_bytes: int, window_px: int
) -> list[WorstPair]:
    found = []
    for sample, check in pairs:
        try:
            comparison = _comparison(sample, check, survey, window_px)
        except RunError as error:
            survey.note(sample.sample, error)
            continue
        max_bytes -= comparison.num_bytes
        if max_bytes < 0:
            break
        is_beyond = severity(check) > 1
        found.append(WorstPair(photos.number(sample), short(sample.source), comparison, is_beyond))
    return found


def _comparison(sample: Measured, check: PairCheck, survey: Survey, window_px: int) -> Comparison:
    stored, scale = sample.sample.load(), survey.manifest.scale
    hr, lr = (image_of(stored, name, survey.manifest) for name in ("hr", "lr"))
    edge = min(window_px, hr.shape[0]) // scale * scale
    top, left = most_detailed(hr, edge, scale)
    hr = np.ascontiguousarray(hr[top : top + edge, left : left + edge])
    top, left, end = top // scale, left // scale, edge // scale
    lr = np.ascontiguousarray(lr[top : top + end, left : left + end])
    caption = str(main_finding(check))
    x, y, width, height = sample.box
    return Comparison(
        id=f"pair-{scale}-{sample.sample.key}",
        title=short(sample.source, 60),
        width=edge,
        height=edge,
        layers=[
            Layer("HR", photo_uri(hr)),
            Layer("LR", lossless_uri(lr)),
            Layer("difference", lossless_uri(difference(hr, lr))),
        ],
        caption=caption[:1].upper() + caption[1:],
        facts=[
            ("pair", short(sample.source, 300)),
            ("sample", sample.sample.key),
            ("part of the pair", f"{width} {TIMES} {height} px at {x}, {y}"),
            *figures(check),
        ],
    )


def difference(hr: Pixels, lr: Pixels) -> Pixels:
    """Return LR - HR at LR's size, four times as strong: grey where they are equal, lighter where LR is."""
    small = resize(hr, lr.shape[0], lr.shape[1], "area").astype(np.int16)
    return np.asarray(np.clip(128 + _AMPLIFICATION * (lr - small), 0, 255), np.uint8)
