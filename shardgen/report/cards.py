"""Cards: photos with a checkbox, by which they are excluded."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from shardgen.planning.exclusion import exclude_line
from shardgen.report.measures import aliased_part
from shardgen.report.survey import Measured, Survey, image_of
from shardgen.report.text import short
from srshards.errors import RunError
from srshards.imaging.luma import luma_full_range
from srshards.imaging.pixels import Pixels
from srshards.imaging.window import strongest_window
from srshards.page.pictures import lossless_uri, thumbnail_uri

# Photographs rarely reach this limit. It is for noise, whose thumbnails are five times as large, and long names.
_MAX_LIST_BYTES = 400_000
_TEXT_BYTES = 400  # upper bound of the markup of a card, without image and names
_THUMBNAIL_PX = 200
_LR_WINDOW_PX = 64

PhotoId = tuple[str, bool]  # `Measured.photo`


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

    of: PhotoId
    photo: int | None
    name: str
    caption: str
    split: str
    uri: str | None = None
    is_pixels: bool = False  # an LR image, shown without interpolation
    num_bytes: int = 0  # in the page, at most


class Cards:
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

    def hr(self, sample: Measured, caption: str) -> Card:
        return self._card(sample, caption, thumbnail_uri(self._image(sample, "hr"), _THUMBNAIL_PX))

    def name(self, sample: Measured, caption: str) -> Card:
        return self._card(sample, caption)

    def lr(self, sample: Measured, caption: str) -> Card:
        """Return a card that shows the part of LR with the most aliasing."""
        hr, lr = self._image(sample, "hr"), self._image(sample, "lr")
        method = sample.sample.describe()["method"]
        aliased = np.square(aliased_part(luma_full_range(hr), sample.scale, method), dtype=np.float64)
        edge = min(_LR_WINDOW_PX, *aliased.shape)
        top, left = strongest_window(aliased, edge, edge)
        pixels = lossless_uri(np.ascontiguousarray(lr[top : top + edge, left : left + edge]))
        return self._card(sample, caption, pixels, is_pixels=True)

    def _image(self, sample: Measured, name: str) -> Pixels:
        return image_of(sample.sample, name, self._surveys[sample.scale].manifest)

    def _card(self, sample: Measured, caption: str, uri: str | None = None, is_pixels: bool = False) -> Card:
        photo, name = self._photos.number(sample), short(sample.source)
        line = "" if photo is None else self._photos.lines[photo]
        text = 6 * (len(name) + len(caption) + len(line))  # bytes of an escaped character
        num_bytes = _TEXT_BYTES + text + len(uri or "")
        return Card(sample.photo, photo, name, caption, sample.split, uri, is_pixels, num_bytes)
