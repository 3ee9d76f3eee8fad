"""Photos to consider for exclusion: those that are alike, and the extremes of each measure."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shardgen.report.alike import (
    MAX_COMPARED_FLATNESS,
    MAX_DISTANCE,
    Alike,
    CardGroup,
    card_groups,
    groups_alike,
)
from shardgen.report.cards import Card, Cards, PhotoId, Photos
from shardgen.report.survey import Measured, Survey
from shardgen.report.text import TIMES

PER_LIST = 16
_HASHES = (
    "A hash describes the coarse structure of an image by 64 bits, whatever its size and compression; near-duplicates "
    f"differ in at most {MAX_DISTANCE} of them."
)


@dataclass(frozen=True)
class Extremes:
    """A list of cards, or of groups of cards.

    `elsewhere` are (number of photos, id, title) of the lists above that show the rest of its photos.
    """

    id: str
    title: str
    explanation: str
    cards: Sequence[Card] = ()
    groups: Sequence[CardGroup] = ()
    elsewhere: Sequence[tuple[int, str, str]] = ()
    nothing: str = ""  # the text of an empty list


@dataclass(frozen=True)
class Found:
    """All lists, and the groups of photos that are alike, in `val` and `train` or within one of them."""

    lists: Sequence[Extremes]
    across: Sequence[Alike]
    within: Sequence[Alike]


@dataclass(frozen=True)
class _Ranking:
    """A measure by which photos are listed: the key to sort by, and the value as text."""

    id: str
    title: str
    explanation: str
    samples: Sequence[Measured]
    key: Callable[[Measured], tuple[float, ...]]
    value: Callable[[Measured], str]
    nothing: str = ""


def extremes(surveys: Sequence[Survey], photos: Photos) -> Found:
    """Return all lists over all scales. A photo is shown once, by its most extreme sample, with all of its reasons."""
    samples = [sample for survey in surveys for sample in survey.measured]
    cards = Cards(surveys, photos)
    rankings = _rankings(surveys, samples)
    # At most half of the photos, so that in a small set the darkest are not the brightest, too.
    half = min(PER_LIST, (len({sample.photo for sample in samples}) + 1) // 2)
    worst = {one.id: _worst(one.samples, one.key, PER_LIST if one.id == "enlarged" else half) for one in rankings}
    reasons: dict[PhotoId, list[tuple[tuple[int, ...], str]]] = {}  # (box, text)
    for one in rankings:
        for sample in worst[one.id]:
            reasons.setdefault(sample.photo, []).append((sample.box, one.value(sample)))

    def caption(sample: Measured) -> str:
        """Return the reasons for a photo: those of the sample, then those of its other tiles."""
        all_of = reasons.get(sample.photo, ())
        at_left_top = sample.box[:2]  # the size may differ by a rounding between scales
        own = dict.fromkeys(text for box, text in all_of if box[:2] == at_left_top)
        others = dict.fromkeys(text for box, text in all_of if box[:2] != at_left_top)
        return ", ".join([*own, *(["other tiles: " + ", ".join(others)] if others else [])])

    groups = groups_alike(samples)
    across, within = ([one for one in groups if one.in_both_splits is both] for both in (True, False))
    lists = _alike_lists(samples, across, within, cards, caption)
    where = {card.of: one for one in lists for group in one.groups for card in group.shown}
    for one in rankings:
        if one.id == "enlarged" and not one.samples:
            continue
        own = [sample for sample in worst[one.id] if sample.photo not in where]
        above = [where[sample.photo] for sample in worst[one.id] if sample.photo in where]
        elsewhere = [(above.count(other), other.id, other.title) for other in lists if other in above]
        make = cards.lr if one.id == "aliased" else cards.hr
        shown = cards.fitting(own, make, caption)
        made = Extremes(one.id, one.title, one.explanation, shown, (), elsewhere, one.nothing)
        lists.append(made)
        where |= {card.of: made for card in shown}
    return Found(lists, across, within)


def _rankings(surveys: Sequence[Survey], samples: Sequence[Measured]) -> list[_Ranking]:
    aliased = [sample for sample in samples if sample.aliasing is not None]
    has_scales = len({sample.scale for sample in aliased}) > 1
    return [
        _Ranking(
            "enlarged",
            "Enlarged",
            "Smaller than HR and therefore upscaled to it, which adds no detail: by the greatest factor. A smaller "
            "--size enlarges fewer photos.",
            [sample for sample in samples if sample.enlargement > 1],
            lambda m: (-m.enlargement,),
            lambda m: f"enlarged {m.enlargement:.2f}{TIMES}",
        ),
        _Ranking(
            "flattest",
            "Flattest",
            "Mostly uniform areas without detail to restore: by the share of blocks of "
            f"16 {TIMES} 16 px whose grey levels have a standard deviation below 2.",
            samples,
            lambda m: (-m.flatness, m.sharpness),
            lambda m: f"{100 * m.flatness:.0f}% flat",
        ),
        _Ranking(
            "softest",
            "Softest",
            "Out of focus, blurred by motion, or upscaled earlier: by the lowest variance of the Laplacian (log10).",
            samples,
            lambda m: (m.sharpness,),
            lambda m: f"sharpness {m.sharpness:.2f}",
        ),
        _Ranking(
            "darkest",
            "Darkest",
            "By the lowest mean brightness, from 0 to 1.",
            samples,
            lambda m: (m.brightness,),
            lambda m: f"brightness {m.brightness:.2f}",
        ),
        _Ranking(
            "brightest",
            "Brightest",
            "By the highest mean brightness, e.g. white pages and overexposed photos.",
            samples,
            lambda m: (-m.brightness,),
            lambda m: f"brightness {m.brightness:.2f}",
        ),
        _Ranking(
            "aliased",
            "Most aliased",
            "Detail too fine for LR, which appears in it as false patterns and jagged edges: by the part of LR that "
            "comes from frequencies above its Nyquist limit, the finest detail that LR can hold, in grey levels (RMS). "
            "Shown is the worst part of LR, pixel by pixel.",
            aliased,
            lambda m: (-(m.aliasing or 0.0),),
            lambda m: f"aliasing {m.aliasing:.1f} levels" + (f" at {m.scale}{TIMES}" if has_scales else ""),
            "Not measured: these LR images are degraded by a recipe, which adds blur and noise on purpose, so "
            "aliasing cannot be distinguished.",
        ),
    ]


def _worst(samples: Iterable[Measured], key: Callable[[Measured], tuple[float, ...]], count: int) -> list[Measured]:
    """Return the first samples by the key, each photo once; ties are sorted by name, independent of shards."""
    best: dict[PhotoId, tuple[tuple[object, ...], Measured]] = {}
    for sample in samples:
        rank = (*key(sample), sample.source, sample.scale, sample.sample.key)
        if sample.photo not in best or rank < best[sample.photo][0]:
            best[sample.photo] = (rank, sample)
    return [sample for _, sample in heapq.nsmallest(count, best.values(), key=lambda pair: pair[0])]


def _alike_lists(
    samples: Sequence[Measured],
    across: Sequence[Alike],
    within: Sequence[Alike],
    cards: Cards,
    caption: Callable[[Measured], str],
) -> list[Extremes]:
    lists = []
    if len({sample.split for sample in samples}) > 1:
        groups = card_groups(across, cards, caption)
        explanation = (
            "Validation photos of which train has a near-duplicate or an overlapping part. A network has seen them, so "
            "the figures of its validation are too good. Exclude one side, or pass other pictures as --val. "
            f"{_HASHES}"
        )
        lists.append(
            Extremes(
                "across",
                "In train and val",
                explanation + _some(groups, across),
                groups=groups,
                nothing="None found among the measured photos. Overlaps of soft or flat pictures may be missed.",
            )
        )
    groups = card_groups(within, cards, caption)
    after = "" if all(sample.is_excludable for sample in samples) else ", after those of --val"
    hashes = "" if lists else f" {_HASHES}"  # explained once
    explanation = (
        f"Photos that look alike, by their hashes.{hashes} The largest photo of a group is listed first{after}. Images "
        f"that are more than {100 * MAX_COMPARED_FLATNESS:.0f}% flat are not compared."
    )
    nothing = "None among the measured photos."
    lists.append(
        Extremes("alike", "Near-duplicates", explanation + _some(groups, within), groups=groups, nothing=nothing)
    )
    return lists


def _some(groups: Sequence[CardGroup], found: Sequence[Alike]) -> str:
    """Return a sentence on the groups that are not shown."""
    return f" Shown are {len(groups)} of {len(found):,} groups." if len(found) > len(groups) else ""
