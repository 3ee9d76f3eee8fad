"""Samples of given pairs: HR and LR are cut into tiles, on the pixel grid of LR, and never resized."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from shardgen.pairs.check import check_pair, problem
from shardgen.pairs.compatibility import matched_box, require_same_profiles
from shardgen.pairs.source import read_ahead
from shardgen.pairs.summary import PairRecord
from shardgen.planning.boxes import Box, boxes, num_tiles
from shardgen.planning.config import Config, PairSettings
from shardgen.planning.sources import Photo, Source, printable
from shardgen.shard.sample import Hr, Sample
from shardgen.shard.stages import StageTimes
from srshards.errors import PhotoError
from srshards.imaging.photo import DecodedPhoto, decode_photo
from srshards.imaging.pixels import Pixels
from srshards.imaging.upsampling import upsample

_Read = Callable[[], bytes]


@dataclass(frozen=True)
class PairSource:
    """A `SampleSource` of the given pairs of a split, at some scales."""

    config: Config
    pairs: PairSettings
    split: str
    scales: Sequence[int]
    times: StageTimes

    def open_each(self, photos: Sequence[Source]) -> Iterator[tuple[Source, Callable[[], "_OpenedPair"]]]:
        readers = read_ahead(list(self.config.files(self.split, photos, self.scales)))
        for pair in photos:
            read_hr = next(readers)
            reads = {scale: list(islice(readers, len(pair.counterparts(scale)))) for scale in self.scales}
            yield pair, partial(self._open, pair, read_hr, reads)

    def _open(self, pair: Source, read_hr: _Read, reads: Mapping[int, Sequence[_Read]]) -> "_OpenedPair":
        return _OpenedPair(self, pair, self.decoded(read_hr), reads)

    def decoded(self, read: _Read) -> DecodedPhoto:
        with self.times.timed("read"):
            data = read()
        with self.times.timed("decode"):
            return decode_photo(data, to_srgb=self.config.icc == "convert")


@dataclass(frozen=True)
class _Matched:
    """The images of a pair at a scale; HR and `up`, if it is given, are cropped to the size of LR times the scale."""

    hr: Pixels
    lr: Pixels
    up: Pixels | None
    record: PairRecord


@dataclass(frozen=True)
class _OpenedPair:
    """A pair with its HR image decoded. LR and `up` of a scale are decoded when its samples are counted."""

    source: PairSource
    pair: Source
    decoded: DecodedPhoto  # HR
    reads: Mapping[int, Sequence[_Read]]
    matched: dict[int, _Matched] = field(default_factory=dict)  # by scale

    is_enlarged = False

    @property
    def hr(self) -> Pixels:
        return self.decoded.rgb

    def num_samples(self, scale: int) -> int:
        files = self.pair.counterparts(scale)
        lr, *ups = (
            self._open(what, file, read)
            for what, file, read in zip(("LR", "upsampled"), files, self.reads[scale], strict=False)
        )
        box = matched_box(self.hr.shape[:2], lr.rgb.shape[:2], scale)
        require_same_profiles(self.decoded, lr)
        up = self._cropped_up(ups[0].rgb, box, files[1]) if ups else None
        count = num_tiles(box.h, box.w, *self.source.config.tile(scale))
        if count:
            hr = self.hr[: box.h, : box.w]
            self.matched[scale] = _Matched(hr, lr.rgb, up, self._checked(hr, lr.rgb, scale))
        return count

    def _open(self, what: str, file: Photo, read: _Read) -> DecodedPhoto:
        try:
            return self.source.decoded(read)
        except PhotoError as error:
            raise PhotoError(f"{what} {printable(file.path)}: {error}") from error

    def _cropped_up(self, up: Pixels, box: Box, file: Photo) -> Pixels:
        if up.shape[:2] not in ((box.h, box.w), self.hr.shape[:2]):
            raise PhotoError(
                f"upsampled {printable(file.path)} is {up.shape[1]} x {up.shape[0]} px: expected {box.w} x {box.h} px, "
                "the size of LR times the scale; omit --up to compute it"
            )
        return up[: box.h, : box.w]

    def _checked(self, hr: Pixels, lr: Pixels, scale: int) -> PairRecord:
        with self.source.times.timed("check"):
            check = check_pair(hr, lr, scale)
        reason = problem(check)
        if reason and not self.source.pairs.accept_misaligned:
            raise PhotoError(reason)
        return PairRecord(check, is_cropped=hr.shape != self.hr.shape, is_accepted=bool(reason))

    def pair_record(self, scale: int) -> PairRecord:
        return self.matched[scale].record

    def samples(self, scales: Sequence[int]) -> Iterator[Sample]:
        for scale in scales:
            matched = self.matched[scale]
            height, width = matched.hr.shape[:2]
            for box in boxes(height, width, "tile", *self.source.config.tile(scale)):
                with self.source.times.timed("resize"):
                    sample = self._sample(matched, box, scale)
                yield sample

    def _sample(self, matched: _Matched, box: Box, scale: int) -> Sample:
        lr_box = Box(*(edge // scale for edge in box))
        lr = _cut(matched.lr, lr_box)
        up = upsample(lr, scale, self.source.config.method) if matched.up is None else _cut(matched.up, box)
        names = ("lr_source", "up_source")
        sources = dict(zip(names, (file.path for file in self.pair.counterparts(scale)), strict=False))
        details = {**sources, "pair": matched.record.check.as_dict()}
        return Sample(scale, box, Hr(_cut(matched.hr, box)), [lr], up, details)


def _cut(pixels: Pixels, box: Box) -> Pixels:
    return np.ascontiguousarray(pixels[box.y : box.y + box.h, box.x : box.x + box.w])
