"""Photos to consider for exclusion: the extremes of each measure, and near-duplicates."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from shardgen.planning.exclusion import exclude_line
from shardgen.report.duplicates import near_duplicates
from shardgen.report.measures import aliased_part
from shardgen.report.survey import Measured, Survey, image_of
from shardgen.report.text import TIMES, short
from srshards.errors import RunError
from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.imaging.window import strongest_window
from srshards.page.pictures import lossless_uri, thumbnail_uri
from srshards.terminal.text import plural

PER_LIST = 16
MAX_GROUPS = 20
# Photographs rarely reach these limits. They are for noise, whose thumbnails are five times as large, and long names.
_MAX_LIST_BYTES = 400_000
_MAX_GROUPS_BYTES = 2_000_000
_TEXT_BYTES = 400  # upper bound of the markup of a card, without image and names
_SHOWN_PER_GROUP = 8
_NAMED_PER_GROUP = 40
# Measured on 700 real photos: saved as JPEG of quality 50, halved in size or made 10 % brighter, all stay within 6 bits
# of the original; with 1 % cropped from each side, 94 % do. All pairs of different photos within 10 bits look alike;
# the closest pair that does not has a distance of 12.
MAX_DISTANCE = 6
_MAX_COMPARED_FLATNESS = 0.9
_THUMBNAIL_PX = 200
_LR_WINDOW_PX = 96


@dataclass
class Photos:
    """The photos that can be ticked, by number, and their lines in a file for `--exclude`."""

    lines: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, sample: Measured) -> int | None:
        """Return the number of a sample's photo, and add the photo if it is new. None if it cannot be excluded."""
        if not sample.is_excludable:
            return None
        if sample.source not in self._numbers:
            self._numbers[sample.source] = len(self.lines)
            self.lines.append(exclude_line(sample.source))
        return self._numbers[sample.source]


@dataclass(frozen=True)
class Card:
    """A photo with a checkbox. `photo` is None if it cannot be excluded, `uri` if only its name is shown."""

    photo: int | None
    name: str
    caption: str
    uri: str | None = None
    is_pixels: bool = False  # an LR image, shown without interpolation
    num_bytes: int = 0  # in the page, at most


@dataclass(frozen=True)
class Extremes:
    """A list of cards, or of groups of cards."""

    id: str
    title: str
    explanation: str
    cards: Sequence[Card] = ()
    groups: Sequence["CardGroup"] = ()
    nothing: str = ""  # the text of an empty list


@dataclass(frozen=True)
class CardGroup:
    """Near-duplicates, largest first: cards with thumbnails, cards without, and the number of photos left out."""

    title: str
    shown: Sequence[Card]
    named: Sequence[Card]
    num_left_out: int


def extremes(surveys: Sequence[Survey], photos: Photos) -> list[Extremes]:
    """Return all lists over all scales; each lists a photo at most once, by its most extreme sample."""
    samples = [sample for survey in surveys for sample in survey.measured]
    cards = _Cards(surveys, photos)
    return [
        Extremes(
            "flattest",
            "Flattest",
            "Mostly uniform areas without detail to restore: by the share of blocks of "
            f"16 {TIMES} 16 px whose grey levels have a standard deviation below 2.",
            cards.hr(_worst(samples, lambda m: (-m.flatness, m.sharpness)), lambda m: f"{100 * m.flatness:.0f}% flat"),
        ),
        Extremes(
            "softest",
            "Softest",
            "Out of focus, blurred by motion, or upscaled earlier: by the lowest variance of the Laplacian (log10).",
            cards.hr(_worst(samples, lambda m: (m.sharpness,)), lambda m: f"sharpness {m.sharpness:.2f}"),
        ),
        Extremes(
            "darkest",
            "Darkest",
            "By the lowest mean brightness, from 0 to 1.",
            cards.hr(_worst(samples, lambda m: (m.brightness,)), lambda m: f"brightness {m.brightness:.2f}"),
        ),
        Extremes(
            "brightest",
            "Brightest",
            "By the highest mean brightness, e.g. white pages and overexposed photos.",
            cards.hr(_worst(samples, lambda m: (-m.brightness,)), lambda m: f"brightness {m.brightness:.2f}"),
        ),
        _aliased(surveys, cards),
        _near_duplicates(samples, cards),
    ]


def _worst(samples: Iterable[Measured], key: Callable[[Measured], tuple[float, ...]]) -> list[Measured]:
    """Return the first samples by the key, each photo once; ties are sorted by name, independent of shards.

    At most half of the photos, so that in a small set the darkest are not the brightest, too.
    """
    best: dict[tuple[str, bool], tuple[tuple[object, ...], Measured]] = {}
    for sample in samples:
        rank = (*key(sample), sample.source, sample.scale, sample.sample.key)
        if sample.photo not in best or rank < best[sample.photo][0]:
            best[sample.photo] = (rank, sample)
    count = min(PER_LIST, (len(best) + 1) // 2)
    return [sample for _, sample in heapq.nsmallest(count, best.values(), key=lambda pair: pair[0])]


class _Cards:
    """Creates cards. A damaged sample gets none, and is added to its survey's damages."""

    def __init__(self, surveys: Sequence[Survey], photos: Photos) -> None:
        self._surveys, self._photos = {survey.manifest.scale: survey for survey in surveys}, photos

    def fitting(
        self,
        samples: Iterable[Measured],
        make: Callable[[Measured, str], Card],
        caption: Callable[[Measured], str],
        max_bytes: int = _MAX_LIST_BYTES,
    ) -> list[Card]:
        """Return cards of the first samples that fit into `max_bytes` of the page."""
        cards: list[Card] = []
        for sample in samples:
            try:
                card = make(sample, caption(sample))
            except RunError as error:
                self._surveys[sample.scale].note(sample.sample, error)
                continue
            max_bytes -= card.num_bytes
            if max_bytes < 0:
                break
            cards.append(card)
        return cards

    def hr(self, samples: Iterable[Measured], caption: Callable[[Measured], str]) -> list[Card]:
        return self.fitting(samples, self.thumbnail, caption)

    def thumbnail(self, sample: Measured, caption: str) -> Card:
        return self._card(sample, caption, thumbnail_uri(self._image(sample, "hr"), _THUMBNAIL_PX))

    def name(self, sample: Measured, caption: str) -> Card:
        return self._card(sample, caption)

    def lr(self, sample: Measured, caption: str) -> Card:
        """Return a card that shows the part of LR with the most aliasing."""
        hr, lr = self._image(sample, "hr"), self._image(sample, "lr")
        method = sample.sample.describe()["method"]
        top, left, edge = _strongest(np.abs(aliased_part(luma_full_range(hr), sample.scale, method)))
        pixels = lossless_uri(np.ascontiguousarray(lr[top : top + edge, left : left + edge]))
        return self._card(sample, caption, pixels, is_pixels=True)

    def _image(self, sample: Measured, name: str) -> Pixels:
        return image_of(sample.sample, name, self._surveys[sample.scale].manifest)

    def _card(self, sample: Measured, caption: str, uri: str | None = None, is_pixels: bool = False) -> Card:
        photo, name = self._photos.number(sample), short(sample.source)
        line = "" if photo is None else self._photos.lines[photo]
        text = 6 * (len(name) + len(caption) + len(line))  # bytes of an escaped character
        return Card(photo, name, caption, uri, is_pixels, _TEXT_BYTES + text + len(uri or ""))


def _strongest(field: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> tuple[int, int, int]:
    """Return top, left and edge of the square with the greatest sum of squares, at most 96 px wide."""
    edge = min(_LR_WINDOW_PX, *field.shape)
    return *strongest_window(np.square(field, dtype=np.float64), edge, edge), edge


def _aliased(surveys: Sequence[Survey], cards: _Cards) -> Extremes:
    samples = [sample for survey in surveys for sample in survey.measured if sample.aliasing is not None]
    explanation = (
        "Detail too fine for LR, which appears as false patterns and jagged edges: by the part of LR that comes from "
        "frequencies above its Nyquist limit, in grey levels (RMS). Shown is the worst part of LR, pixel by pixel."
    )
    if not samples:
        return Extremes(
            "aliased",
            "Most aliased",
            explanation,
            nothing="Not measured: these LR images are degraded by a recipe, which adds blur and noise on purpose, so "
            "aliasing cannot be distinguished.",
        )
    has_scales = len({sample.scale for sample in samples}) > 1

    def caption(sample: Measured) -> str:
        return f"{sample.aliasing:.1f} levels" + (f", {sample.scale}{TIMES}" if has_scales else "")

    worst = _worst(samples, lambda m: (-(m.aliasing or 0.0),))
    return Extremes("aliased", "Most aliased", explanation, cards.fitting(worst, cards.lr, caption))


def _part(sample: Measured) -> str:
    return f"{sample.box[2]} {TIMES} {sample.box[3]} px"


def _near_duplicates(samples: Sequence[Measured], cards: _Cards) -> Extremes:
    """Compare each image once over all scales, except flat ones, because all flat tiles are similar."""
    compared = (sample for sample in reversed(samples) if sample.flatness <= _MAX_COMPARED_FLATNESS)
    first = {(sample.photo, sample.box): sample for sample in compared}
    images = sorted(first.values(), key=lambda sample: (sample.photo, sample.box))
    found = near_duplicates([image.photo for image in images], [image.hash for image in images], MAX_DISTANCE)
    groups: list[CardGroup] = []
    room = _MAX_GROUPS_BYTES
    for group in found[:MAX_GROUPS]:
        members = [images[number] for number in group.images]
        members.sort(key=lambda sample: (sample.is_excludable, -sample.box[2] * sample.box[3], sample.source))
        shown = cards.fitting(members[:_SHOWN_PER_GROUP], cards.thumbnail, _part, room)
        room -= sum(card.num_bytes for card in shown)
        if len(shown) < 2:  # no room for more, or damaged
            continue
        rest = members[_SHOWN_PER_GROUP:][:_NAMED_PER_GROUP] if len(shown) == _SHOWN_PER_GROUP else ()
        named = cards.fitting(rest, cards.name, _part, room)
        room -= sum(card.num_bytes for card in named)
        bits = f"{group.distance} of 64 bits differ" if group.distance else "equal hashes"
        bits = f"up to {bits} between neighbours" if group.distance and len(members) > 2 else bits
        title = f"{plural(len(members), 'photo')}, {bits}"
        groups.append(CardGroup(title, shown, named, len(members) - len(shown) - len(named)))
    more = len(found) - len(groups)
    after = "" if all(sample.is_excludable for sample in samples) else ", after those of --val"
    explanation = (
        "Photos that look alike: their perceptual hashes differ in at most "
        f"{MAX_DISTANCE} of 64 bits. The largest photo of a group is listed first{after}. Images that are more than "
        f"{100 * _MAX_COMPARED_FLATNESS:.0f}% flat are not compared."
        + (f" Shown are the {len(groups)} most similar of {len(found):,} groups." if more else "")
    )
    return Extremes("alike", "Near-duplicates", explanation, groups=groups, nothing="None among the measured photos.")
