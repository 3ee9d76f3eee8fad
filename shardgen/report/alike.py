"""Groups of photos that look alike or show parts of the same picture."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shardgen.report.cards import Card, Cards, PhotoId
from shardgen.report.duplicates import near_duplicates
from shardgen.report.overlaps import overlaps
from shardgen.report.survey import Measured
from shardgen.report.text import TIMES
from srshards.terminal.text import plural

MAX_GROUPS = 20
# Measured on 700 real photos: saved as JPEG of quality 50, halved in size or made 10 % brighter, all stay within 6 bits
# of the original; with 1 % cropped from each side, 94 % do. All pairs of different photos within 10 bits look alike;
# the closest pair that does not has a distance of 12.
MAX_DISTANCE = 6
MAX_COMPARED_FLATNESS = 0.9
_MAX_GROUPS_BYTES = 1_000_000  # of both lists of groups
_SHOWN_PER_GROUP = 6
_NAMED_PER_GROUP = 40


@dataclass(frozen=True)
class Alike:
    """A group of photos by one image of each: those of `val` first, then by size.

    `distance` is the greatest one of neighbours in bits, None if photos are in it because they overlap.
    """

    members: Sequence[Measured]
    distance: int | None

    @property
    def in_both_splits(self) -> bool:
        return len({member.split for member in self.members}) > 1


def groups_alike(samples: Sequence[Measured]) -> list[Alike]:
    """Compare each image once over all scales, except flat ones, because all flat tiles are similar.

    Near-duplicates are found in all photos, overlaps only between train and val.
    """
    compared = (sample for sample in reversed(samples) if sample.flatness <= MAX_COMPARED_FLATNESS)
    first = {(sample.photo, sample.box): sample for sample in compared}
    images = sorted(first.values(), key=lambda sample: (sample.photo, sample.box))
    found = near_duplicates([image.photo for image in images], [image.hash for image in images], MAX_DISTANCE)
    groups = [Alike(_sorted(images[number] for number in group.images), group.distance) for group in found]
    return _joined(groups, _overlapping(samples))


def _sorted(members: Iterable[Measured]) -> Sequence[Measured]:
    return sorted(
        members, key=lambda one: (one.is_excludable, one.split == "train", -one.box[2] * one.box[3], one.photo)
    )


def _overlapping(samples: Sequence[Measured]) -> list[tuple[Measured, Measured]]:
    """Return pairs of a validation and a training image that show parts of the same picture, each photo pair once."""
    with_features = {(sample.photo, sample.box): sample for sample in samples if sample.features is not None}
    sides = [[sample for sample in with_features.values() if sample.split == split] for split in ("val", "train")]
    val, train = ([(sample, sample.features) for sample in side if sample.features] for side in sides)
    found = overlaps([features for _, features in val], [features for _, features in train])
    pairs: dict[tuple[PhotoId, PhotoId], tuple[int, Measured, Measured]] = {}
    for i, j, matches in found:
        left, right = val[i][0], train[j][0]
        if (left.photo, right.photo) not in pairs or matches > pairs[left.photo, right.photo][0]:
            pairs[left.photo, right.photo] = (matches, left, right)
    return [(left, right) for _, left, right in sorted(pairs.values(), key=lambda one: (-one[0], one[1].photo))]


def _joined(groups: Sequence[Alike], pairs: Iterable[tuple[Measured, Measured]]) -> list[Alike]:
    """Return the groups, joined where a pair connects them, and groups of the other pairs."""
    of_photo: dict[PhotoId, dict[PhotoId, Measured]] = {}
    exact: dict[int, int | None] = {}
    for group in groups:
        members = {member.photo: member for member in group.members}
        of_photo |= dict.fromkeys(members, members)
        exact[id(members)] = group.distance
    for pair in pairs:
        joined: dict[PhotoId, Measured] = {}
        for sample in pair:
            joined |= of_photo.get(sample.photo, {sample.photo: sample})
        if all(of_photo.get(sample.photo, {}).keys() == joined.keys() for sample in pair):
            continue  # near-duplicates already
        of_photo |= dict.fromkeys(joined, joined)
        exact[id(joined)] = None
    unique = {id(members): members for members in of_photo.values()}
    return [Alike(_sorted(members.values()), exact[number]) for number, members in unique.items()]


@dataclass(frozen=True)
class CardGroup:
    """Photos that are alike: cards with thumbnails, cards without, and the number of photos left out.

    `ticks` is what its button ticks: "rest" (all but the first photo), "val" or "train".
    """

    title: str
    ticks: str
    shown: Sequence[Card]
    named: Sequence[Card]
    num_left_out: int


def card_groups(groups: Sequence[Alike], cards: Cards, reasons: Callable[[Measured], str]) -> list[CardGroup]:
    """Return cards of the first groups, as many as fit into the page. `reasons` is what else is unusual of a photo."""
    made: list[CardGroup] = []
    bytes_left = _MAX_GROUPS_BYTES

    def caption(sample: Measured) -> str:
        part = f"{sample.box[2]} {TIMES} {sample.box[3]} px"
        return ", ".join(filter(None, (part, reasons(sample))))

    for group in groups[:MAX_GROUPS]:
        shown = cards.fitting(group.members[:_SHOWN_PER_GROUP], cards.hr, caption, bytes_left)
        if len(shown) < 2:  # the limit is reached, or images are damaged
            continue
        bytes_left -= sum(card.num_bytes for card in shown)
        rest = group.members[_SHOWN_PER_GROUP:][:_NAMED_PER_GROUP] if len(shown) == _SHOWN_PER_GROUP else ()
        named = cards.fitting(rest, cards.name, caption, bytes_left)
        bytes_left -= sum(card.num_bytes for card in named)
        left_out = len(group.members) - len(shown) - len(named)
        made.append(CardGroup(_title(group), _ticks(group), shown, named, left_out))
    return made


def _title(group: Alike) -> str:
    if group.in_both_splits:
        val = sum(member.split == "val" for member in group.members)
        title = f"{val:,} of val, {len(group.members) - val:,} of train"
    else:
        title = plural(len(group.members), "photo")
    if group.distance is None:
        return f"{title}, overlapping"
    bits = f"{group.distance} of 64 bits differ" if group.distance else "equal hashes"
    bits = f"up to {bits} between neighbours" if group.distance and len(group.members) > 2 else bits
    return f"{title}, {bits}"


def _ticks(group: Alike) -> str:
    if not group.in_both_splits:
        return "rest"
    return "val" if group.members[0].is_excludable else "train"
