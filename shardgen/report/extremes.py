"""The photos that someone may want to leave out: the ends of each measure, and those that look alike."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from shardgen.planning.exclusion import exclude_line
from shardgen.report.duplicates import look_alikes
from shardgen.report.measures import aliases
from shardgen.report.survey import Measured, Survey, image_of
from shardgen.report.text import TIMES, short
from srshards.errors import RunError
from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.imaging.window import strongest_window
from srshards.page.pictures import exact, thumbnail
from srshards.terminal.text import plural

PER_LIST = 16
MAX_GROUPS = 20
# Of photos nearly all are on the page; it is for noise, of which thumbnails are five times as large, and endless names.
_MAX_LIST_BYTES = 400_000
_MAX_GROUPS_BYTES = 2_000_000
_TEXT_BYTES = 400  # what a card takes beside its image and names, at most
_SHOWN_PER_GROUP = 8
_NAMED_PER_GROUP = 40
# Of 700 real photos, each saved again as JPEG of quality 50, halved, or made 10 % brighter: all stay within 6 bits;
# less a rim of 1 % on each side, 94 %. All their pairs within 10 bits look alike, the first that do not are 12 apart.
MAX_DISTANCE = 6
_MAX_COMPARED_FLATNESS = 0.9
_THUMBNAIL_PX = 200
_LR_WINDOW_PX = 96


@dataclass
class Photos:
    """The photos that can be ticked, by number, and the line that each would have in a file of `--exclude`."""

    lines: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, source: str) -> int:
        if source not in self._numbers:
            self._numbers[source] = len(self.lines)
            self.lines.append(exclude_line(source))
        return self._numbers[source]


@dataclass(frozen=True)
class Card:
    """A photo with a box to tick. `uri` is None where only its name is shown."""

    photo: int
    name: str
    caption: str
    uri: str | None = None
    is_pixels: bool = False  # an LR image, to be seen pixel by pixel
    num_bytes: int = 0  # what it takes in the page, at most


@dataclass(frozen=True)
class Extremes:
    """One list of cards, or one of groups."""

    id: str
    title: str
    explanation: str
    cards: Sequence[Card] = ()
    groups: Sequence["AlikeGroup"] = ()
    nothing: str = ""  # said when there is none


@dataclass(frozen=True)
class AlikeGroup:
    """Photos that look alike, the largest first: cards with thumbnails, cards without, and how many are not named."""

    title: str
    shown: Sequence[Card]
    named: Sequence[Card]
    num_left_out: int


def extremes(surveys: Sequence[Survey], photos: Photos) -> list[Extremes]:
    """All lists, over all scales: a photo stands once in each, as where it is the most extreme."""
    everything = [sample for survey in surveys for sample in survey.measured]
    made = _Cards(surveys, photos)
    lists = [
        Extremes(
            "flattest",
            "Flattest",
            "Most of the picture is one colour, where there is nothing to restore: the share of its blocks of "
            f"16 {TIMES} 16 px in which grey levels deviate by less than 2.",
            made.hr(
                _worst(everything, lambda m: (-m.flatness, m.sharpness)), lambda m: f"{100 * m.flatness:.0f} % flat"
            ),
        ),
        Extremes(
            "softest",
            "Softest",
            "Out of focus, shaken, or enlarged before they came here: the least variance of the Laplacian, as log10.",
            made.hr(_worst(everything, lambda m: (m.sharpness,)), lambda m: f"sharpness {m.sharpness:.2f}"),
        ),
        Extremes(
            "darkest",
            "Darkest",
            "The least mean brightness, from 0 to 1.",
            made.hr(_worst(everything, lambda m: (m.brightness,)), lambda m: f"brightness {m.brightness:.2f}"),
        ),
        Extremes(
            "brightest",
            "Brightest",
            "The greatest mean brightness: white pages, and what is overexposed.",
            made.hr(_worst(everything, lambda m: (-m.brightness,)), lambda m: f"brightness {m.brightness:.2f}"),
        ),
        _aliased(surveys, made),
        _alike(everything, made),
    ]
    return lists


def _worst(samples: Iterable[Measured], key: Callable[[Measured], tuple[float, ...]]) -> list[Measured]:
    """The first by the key, each photo once. What is equal is put in the order of names, not of shards.

    At most half of the photos: otherwise the darkest of a few would be the brightest, too.
    """
    best: dict[str, tuple[tuple[object, ...], Measured]] = {}
    for sample in samples:
        rank = (*key(sample), sample.source, sample.scale, sample.sample.key)
        if sample.source not in best or rank < best[sample.source][0]:
            best[sample.source] = (rank, sample)
    count = min(PER_LIST, (len(best) + 1) // 2)
    return [sample for _, sample in heapq.nsmallest(count, best.values(), key=lambda pair: pair[0])]


class _Cards:
    """Makes cards. What turns out to be damaged has none, and is named in its survey."""

    def __init__(self, surveys: Sequence[Survey], photos: Photos) -> None:
        self._surveys, self._photos = {survey.manifest.scale: survey for survey in surveys}, photos

    def some(
        self,
        samples: Iterable[Measured],
        make: Callable[[Measured, str], Card],
        caption: Callable[[Measured], str],
        max_bytes: int = _MAX_LIST_BYTES,
    ) -> list[Card]:
        """Of the samples in their order, as many as together take at most `max_bytes`."""
        taken: list[Card] = []
        for sample in samples:
            try:
                card = make(sample, caption(sample))
            except RunError as error:
                self._surveys[sample.scale].note(sample.sample, error)
                continue
            max_bytes -= card.num_bytes
            if max_bytes < 0:
                break
            taken.append(card)
        return taken

    def hr(self, samples: Iterable[Measured], caption: Callable[[Measured], str]) -> list[Card]:
        return self.some(samples, self.thumbnail, caption)

    def thumbnail(self, sample: Measured, caption: str) -> Card:
        return self._card(sample, caption, thumbnail(self._image(sample, "hr"), _THUMBNAIL_PX))

    def name(self, sample: Measured, caption: str) -> Card:
        return self._card(sample, caption)

    def lr(self, sample: Measured, caption: str) -> Card:
        """The part of LR with the most aliasing."""
        hr, lr = self._image(sample, "hr"), self._image(sample, "lr")
        method = sample.sample.describe()["method"]
        top, left, edge = _strongest(np.abs(aliases(luma_full_range(hr), sample.scale, method)))
        pixels = exact(np.ascontiguousarray(lr[top : top + edge, left : left + edge]))
        return self._card(sample, caption, pixels, is_pixels=True)

    def _image(self, sample: Measured, name: str) -> Pixels:
        return image_of(sample.sample, name, self._surveys[sample.scale].manifest)

    def _card(self, sample: Measured, caption: str, uri: str | None = None, is_pixels: bool = False) -> Card:
        photo, name = self._photos.number(sample.source), short(sample.source)
        text = 6 * (len(name) + len(caption) + len(self._photos.lines[photo]))  # of HTML or of JSON for a character
        return Card(photo, name, caption, uri, is_pixels, _TEXT_BYTES + text + len(uri or ""))


def _strongest(field: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> tuple[int, int, int]:
    """Top, left and edge of the square with the greatest sum of squares, at most 96 px wide."""
    edge = min(_LR_WINDOW_PX, *field.shape)
    return *strongest_window(np.square(field, dtype=np.float64), edge, edge), edge


def _aliased(surveys: Sequence[Survey], made: _Cards) -> Extremes:
    some = [sample for survey in surveys for sample in survey.measured if sample.aliasing is not None]
    what = (
        "Fine detail that LR is too small for, and shows as false patterns and steps: how much of LR comes from "
        "frequencies that it cannot hold, in grey levels (RMS). What is shown is LR, pixel by pixel, where it is worst."
    )
    if not some:
        return Extremes(
            "aliased",
            "Most aliased",
            what,
            nothing="Left out: these LR images are made by a recipe, which blurs and adds noise on purpose, so "
            "what comes from detail that is too fine cannot be told apart.",
        )
    several = len({sample.scale for sample in some}) > 1

    def caption(sample: Measured) -> str:
        return f"{sample.aliasing:.1f} levels" + (f", {sample.scale}{TIMES}" if several else "")

    cards = made.some(_worst(some, lambda m: (-(m.aliasing or 0.0),)), made.lr, caption)
    return Extremes("aliased", "Most aliased", what, cards)


def _part(sample: Measured) -> str:
    return f"{sample.box[2]} {TIMES} {sample.box[3]} px"


def _alike(everything: Sequence[Measured], made: _Cards) -> Extremes:
    """Each image once, whatever the number of scales, but none that is flat: one white tile is like another."""
    told = (sample for sample in reversed(everything) if sample.flatness <= _MAX_COMPARED_FLATNESS)
    first = {(sample.source, sample.box): sample for sample in told}
    images = sorted(first.values(), key=lambda sample: (sample.source, sample.box))
    found = look_alikes([one.source for one in images], [one.hash for one in images], MAX_DISTANCE)
    groups: list[AlikeGroup] = []
    room = _MAX_GROUPS_BYTES
    for alike in found[:MAX_GROUPS]:
        members = [images[number] for number in alike.images]
        members.sort(key=lambda sample: (-sample.box[2] * sample.box[3], sample.source))
        shown = made.some(members[:_SHOWN_PER_GROUP], made.thumbnail, _part, room)
        room -= sum(card.num_bytes for card in shown)
        if len(shown) < 2:  # no room for more, or damaged
            continue
        rest = members[_SHOWN_PER_GROUP:][:_NAMED_PER_GROUP] if len(shown) == _SHOWN_PER_GROUP else ()
        named = made.some(rest, made.name, _part, room)
        room -= sum(card.num_bytes for card in named)
        bits = f"{alike.distance} of 64 bits differ" if alike.distance else "the same hash"
        bits = f"up to {bits} from one to the next" if alike.distance and len(members) > 2 else bits
        title = f"{plural(len(members), 'photo')}, {bits}"
        groups.append(AlikeGroup(title, shown, named, len(members) - len(shown) - len(named)))
    more = len(found) - len(groups)
    what = (
        "Photos that look alike: their perceptual hashes differ in at most "
        f"{MAX_DISTANCE} of 64 bits. Of a group, the largest part of a photo stands first. What is more than "
        f"{100 * _MAX_COMPARED_FLATNESS:.0f} % flat is not compared."
        + (f" The {len(groups)} nearest of {len(found):,} groups are shown." if more else "")
    )
    return Extremes(
        "alike", "Near-duplicates", what, groups=groups, nothing="None among the photos that were measured."
    )
