"""Samples of photos: HR is a part of a photo, LR is derived from it by a method or a recipe."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from shardgen.degradation.degrade import draw_variants, libraries
from shardgen.degradation.recipe import DrawnSteps
from shardgen.planning.boxes import Box, cropped_box
from shardgen.planning.config import Config
from shardgen.planning.photo_reader import photos_with_bytes
from shardgen.planning.sources import Source
from shardgen.planning.tile_counts import tiles_of
from shardgen.shard.sample import Hr, Sample
from shardgen.shard.stages import StageTimes
from shardgen.shard.triplet import HrImage, decode_reduced, hr_boxes, is_enlarged, make_triplet, render_crop
from srshards.imaging.photo import DecodedPhoto


@dataclass(frozen=True)
class PhotoSource:
    """A `SampleSource` of photos of a split."""

    config: Config
    split: str
    times: StageTimes

    def open_each(self, photos: Sequence[Source]) -> Iterator[tuple[Source, Callable[[], "_OpenedPhoto"]]]:
        for photo, read in photos_with_bytes(photos, self.config.root(self.split)):
            yield photo, partial(self._open, photo, read)

    def _open(self, photo: Source, read: Callable[[], bytes]) -> "_OpenedPhoto":
        with self.times.timed("read"):
            data = read()
        with self.times.timed("decode"):
            decoded = decode_reduced(data, self.config)
        return _OpenedPhoto(self, photo, decoded)


@dataclass(frozen=True)
class _OpenedPhoto:
    """A decoded photo."""

    source: PhotoSource
    photo: Source
    decoded: DecodedPhoto

    @property
    def is_enlarged(self) -> bool:
        return is_enlarged(self.decoded.true_size, self.source.config)

    def num_samples(self, scale: int) -> int:
        config = self.source.config
        return tiles_of(*self.decoded.true_size, config) if config.fit == "tile" else 1

    def pair_record(self, scale: int) -> None:
        return None

    def samples(self, scales: Sequence[int]) -> Iterator[Sample]:
        config, times = self.source.config, self.source.times
        for box in hr_boxes(self.decoded, config):
            with times.timed("resize"):
                crop = render_crop(self.decoded, box, config)
            sizes = {config.hr_size(scale) for scale in scales}
            hrs = {size: Hr(crop.pixels[:size, :size]) for size in sizes}  # scales that divide the size share it
            for scale in scales:
                with times.timed("degrade"):
                    sample = self._sample(crop, hrs[config.hr_size(scale)], scale)
                yield sample

    def _sample(self, crop: HrImage, hr: Hr, scale: int) -> Sample:
        config = self.source.config
        drawn = self._draw(crop.box, scale)
        triplet = make_triplet(hr.pixels, scale, config.method, drawn)
        # As text, because table formats such as Arrow cannot hold steps with different parameters in one column.
        details = {} if drawn is None else {"degradation": json.dumps(drawn), "libraries": libraries()}
        box = cropped_box(crop.box, config.size, config.hr_size(scale))
        return Sample(scale, box, hr, triplet.lrs, triplet.up, details)

    def _draw(self, box: Box, scale: int) -> list[DrawnSteps] | None:
        config = self.source.config
        if config.degradation is None:
            return None
        variants, hr_size = config.num_variants(self.source.split), config.hr_size(scale)
        return draw_variants(config.degradation, variants, config.seed, self.photo.path, (box.x, box.y), hr_size, scale)
