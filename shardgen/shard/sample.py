"""Samples, and the interface of what they are made from: photos, or given pairs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from shardgen.pairs.summary import PairRecord
from shardgen.planning.boxes import Box
from shardgen.planning.sources import Source
from shardgen.shard.statistics import ChannelSums
from srshards.imaging.photo import DecodedPhoto
from srshards.imaging.pixels import Pixels


@dataclass(frozen=True)
class Hr:
    """An HR image, S x S x 3 uint8, which scales that divide its size share."""

    pixels: Pixels

    @cached_property
    def sums(self) -> ChannelSums:
        return ChannelSums.of(self.pixels)


@dataclass(frozen=True)
class Sample:
    """The images of a sample at one scale, uint8 RGB.

    `hr` and `up` are S x S x 3, each of `lrs` S/scale x S/scale x 3. `box` is the part of the photo that HR shows, in
    px of the photo; `details` are the entries of its `json` that only some samples have.
    """

    scale: int
    box: Box
    hr: Hr
    lrs: Sequence[Pixels]
    up: Pixels
    details: Mapping[str, Any] = field(default_factory=dict)


class Opened(Protocol):
    """A decoded photo or pair."""

    @property
    def decoded(self) -> DecodedPhoto:
        """The photo, or the HR image of a pair."""
        ...

    @property
    def is_enlarged(self) -> bool:
        """Whether the photo is smaller than HR and upscaled to it."""
        ...

    def num_samples(self, scale: int) -> int:
        """Return the number of samples at a scale; 0 if no tile fits. PhotoError if the pair cannot be used there.

        Called once for each scale, before `samples`: a pair's other images are read and checked here.
        """
        ...

    def pair_record(self, scale: int) -> PairRecord | None:
        """Return how well the pair matches at a scale, after `num_samples` has returned; None for a photo."""
        ...

    def samples(self, scales: Sequence[int]) -> Iterator[Sample]:
        """Yield all samples at the scales; those of a scale in the order of their boxes, row by row."""
        ...


class SampleSource(Protocol):
    """Makes the samples of a shard: `PhotoSource` derives LR from photos, `PairSource` takes it from given pairs."""

    def open_each(self, photos: Sequence[Source]) -> Iterator[tuple[Source, Callable[[], Opened]]]:
        """Yield each photo or pair with a function that opens it, reading the files of the next ones ahead.

        The function raises PhotoError when the photo has no sample at any scale, StoreError when a store fails.
        """
        ...
