"""The verdict: what is remarkable about the shards, in a few words each.

docs/reference/shard-report.md lists the thresholds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shardgen.planning.validation import is_small
from shardgen.report.contents import Contents
from shardgen.report.extremes import Found
from shardgen.report.pairs import Pairs
from shardgen.report.survey import Measured, Survey
from shardgen.report.text import TIMES
from srshards.format import SPLITS
from srshards.terminal.text import plural

FLAT_SHARE = 0.75  # of a photo's blocks
FLAT_SHARE_OF_ALL = 0.5  # of the blocks of all photos
SOFT_BELOW = 1.0  # sharpness
DARK_BELOW, BRIGHT_ABOVE = 0.1, 0.9  # brightness
ALIASED_ABOVE_LEVELS = 20.0


@dataclass(frozen=True)
class Remark:
    """A part of the verdict: its section's id, a text, and whether something is wrong, not only unusual."""

    id: str
    text: str
    is_wrong: bool = False


def verdict(
    contents: Sequence[Contents], surveys: Sequence[Survey], found: Found, pairs: Mapping[int, Pairs]
) -> list[Remark]:
    """Return what is remarkable, errors first; an empty list if nothing is. `pairs` are those of each scale."""
    return [
        *_errors(contents, surveys, pairs),
        *_alike(found),
        *_validation(contents, surveys),
        *_unusual(contents, surveys, found),
    ]


def _errors(contents: Sequence[Contents], surveys: Sequence[Survey], pairs: Mapping[int, Pairs]) -> Iterator[Remark]:
    for survey in surveys:
        if survey.damages:
            what = f"{len(survey.damages):,} damaged at {survey.manifest.scale}{TIMES}"
            yield Remark(f"damage-{survey.manifest.scale}", what, True)
    if failed := max(len(one.failures) for one in contents):
        yield Remark("failures", f"{plural(failed, contents[0].noun)} failed", True)
    for scale, of_scale in pairs.items():
        if of_scale.num_beyond:
            yield Remark(
                f"pairs-{scale}", f"{plural(of_scale.num_beyond, 'pair')} of {scale}{TIMES} beyond a bound", True
            )
    if unusable := max(one.unusable_profiles for one in contents):
        yield Remark("photos", f"{plural(unusable, 'colour profile')} not applied", True)


def _alike(found: Found) -> Iterator[Remark]:
    if found.across:
        val = sum(member.split == "val" for group in found.across for member in group.members)
        are_photos = "is also a training photo" if val == 1 else "are also training photos"
        yield Remark("across", f"{plural(val, 'validation photo')} {are_photos}, at least in part", True)
    if len(found.within) == 1 and len(found.within[0].members) == 2:
        yield Remark("alike", "1 pair of near-duplicates")
    elif found.within:
        photos = sum(len(group.members) for group in found.within)
        yield Remark("alike", f"{photos:,} near-duplicates in {plural(len(found.within), 'group')}")


def _validation(contents: Sequence[Contents], surveys: Sequence[Survey]) -> Iterator[Remark]:
    """Yield a remark if few photos are reserved for validation; their number is known if all samples were measured."""
    for one, survey in zip(contents, surveys, strict=True):
        if len(survey.measured) == survey.num_samples and one.settings.get("val_fraction") is not None:
            train, val = (
                len({sample.photo for sample in survey.measured if sample.split == split}) for split in SPLITS
            )
            if is_small(train, val):
                yield Remark("photos", f"only {plural(val, f'validation {one.noun}')}")
                return


def _unusual(contents: Sequence[Contents], surveys: Sequence[Survey], found: Found) -> Iterator[Remark]:
    samples = [sample for survey in surveys for sample in survey.measured]

    def count(is_unusual: Callable[[Measured], bool]) -> int:
        return len({sample.photo for sample in samples if is_unusual(sample)})

    if enlarged := max(one.enlarged for one in contents):
        are_listed = any(one.id == "enlarged" for one in found.lists)  # none of them may have been measured
        yield Remark("enlarged" if are_listed else "photos", plural(enlarged, "enlarged photo"))
    flat = float(np.mean([sample.flatness for sample in samples]))
    if flat >= FLAT_SHARE_OF_ALL:
        yield Remark("flattest", f"{100 * flat:.0f}% of all blocks are flat")
    tile = "with a tile " if any(one.settings.get("fit") == "tile" for one in contents) else ""
    for name, text, is_unusual in (
        ("flattest", f"at least {100 * FLAT_SHARE:.0f}% flat", lambda one: one.flatness >= FLAT_SHARE),
        ("softest", "very soft", lambda one: one.sharpness < SOFT_BELOW),
        ("darkest", "very dark", lambda one: one.brightness < DARK_BELOW),
        ("brightest", "very bright", lambda one: one.brightness > BRIGHT_ABOVE),
        (
            "aliased",
            "strongly aliased (false patterns in LR)",
            lambda one: (one.aliasing or 0.0) > ALIASED_ABOVE_LEVELS,
        ),
    ):
        if number := count(is_unusual):
            yield Remark(name, f"{plural(number, 'photo')} {tile}{text}")
