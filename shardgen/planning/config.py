"""Settings of a run of `generate` or `pack`: validated on construction, immutable afterwards."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shardgen.degradation.recipe import Recipe
from shardgen.planning.sources import Source
from srshards.errors import UsageError
from srshards.format import CODECS, MAX_SCALE, MAX_SIZE_PX, MAX_VARIANTS, MIN_SCALE, Address

FITS = ("cover", "tile", "stretch")
METHODS = ("nearest", "linear", "cubic", "area", "lanczos", "matlab")
ICC = ("convert", "ignore")

# Incremented when the same settings produce different pixels, so that shards of an older release are rebuilt.
ALGORITHM = 2

# The settings that determine every sample's bytes; with a recipe, its steps and the seed do too.
_FINGERPRINTED = ["scale", "size", "hr_size", "fit", "tile_step", "method", "variants", "up", "sharpen_hr", "codec"]
# Settings added in format version 2. With these values, shards of version 1 have the same fingerprint.
_SINCE_VERSION_2 = {"variants": 1, "up": True, "sharpen_hr": False}
# Settings added in format version 3, with their meaning in older versions. They make its fingerprints different.
_SINCE_VERSION_3 = {"icc": "ignore", "pairs": None}

MIN_SIZE_PX = 16
DEFAULT_VAL_FRACTION = 0.02
_MAX_SHARD_BYTES = 10**18


@dataclass(frozen=True)
class ImageRoots:
    """The folders of the given LR images of a split, and of the upsampled ones, by scale."""

    lrs: Mapping[int, Address]
    ups: Mapping[int, Address] = field(default_factory=dict)  # no scale, or those of `lrs`

    def __post_init__(self) -> None:
        assert not self.ups or self.ups.keys() == self.lrs.keys()

    def mapped(self, change: Callable[[Address], Address]) -> "ImageRoots":
        """Return the roots with another address for each folder."""
        return ImageRoots(*({scale: change(root) for scale, root in roots.items()} for roots in (self.lrs, self.ups)))

    def of_scale(self, scale: int) -> tuple[Address, ...]:
        """Return the roots of `Source.counterparts(scale)`, in the same order."""
        return (self.lrs[scale], self.ups[scale]) if self.ups else (self.lrs[scale],)


@dataclass(frozen=True)
class PairSettings:
    """Settings of `pack`: where the LR images of the pairs are, and whether pairs that do not match are used."""

    train: ImageRoots
    val: ImageRoots | None = None  # with `Config.val`
    accept_misaligned: bool = False

    def roots(self, split: str) -> ImageRoots:
        return self.val if split == "val" and self.val else self.train

    def mapped(self, change: Callable[[Address], Address]) -> "PairSettings":
        """Return the settings with another address for each folder."""
        return replace(self, train=self.train.mapped(change), val=self.val and self.val.mapped(change))

    @property
    def plain(self) -> dict[str, Any]:
        """The settings as stored in a manifest, without addresses."""
        return {"up": "given" if self.train.ups else "computed", "accept_misaligned": self.accept_misaligned}


@dataclass(frozen=True)
class Config:
    """The settings that determine the output's bytes; workers and engine do not.

    Raises UsageError for a value outside its range.
    """

    input: Address  # folder of the photos, or of the HR images of pairs
    output: Address
    scales: tuple[int, ...] = (4,)  # each 2-8
    size: int = 512  # HR edge in px before cropping to a multiple of the scale
    fit: str = "cover"
    tile_step: int | None = None  # px between tiles; None: no overlap
    sample: float = 1.0  # fraction of the photos of `input`, 0 < sample <= 1
    method: str = "cubic"  # downsampling to LR unless there is a recipe, and upsampling to `up`
    degradation: Recipe | None = None
    variants: int = 1  # LR images per training sample, drawn from the recipe
    up: bool = True  # whether the upsampled LR is stored
    sharpen_hr: bool = False
    codec: str = "npy"
    icc: str = "convert"  # whether photos with a colour profile are converted to sRGB
    shard_bytes: int = 256_000_000  # each shard has about half of this to all of it
    val_fraction: float | None = None  # fraction of the photos in val, 0 <= f < 1; None: 0.02, or with `val` none
    seed: int = 0
    val: "Address | None" = None  # folder of the validation photos (or their HR images), instead of a fraction
    pairs: PairSettings | None = None  # None: LR is made from the photos

    def __post_init__(self) -> None:
        if not self.scales:
            raise UsageError("--scales: expected one or more of 2 to 8, e.g. --scales 2 4")
        for scale in self.scales:
            if not MIN_SCALE <= scale <= MAX_SCALE:
                raise UsageError(f"scale {scale}: expected an integer from {MIN_SCALE} to {MAX_SCALE}")
        object.__setattr__(self, "scales", tuple(sorted(set(self.scales))))
        _require_choice("--fit", self.fit, FITS)
        _require_choice("--method", self.method, METHODS)
        _require_choice("--codec", self.codec, CODECS)
        _require_choice("--icc", self.icc, ICC)
        _require_range("--size", self.size, MIN_SIZE_PX, MAX_SIZE_PX, "px")
        if self.tile_step is not None:
            if self.fit != "tile":
                raise UsageError("--tile-step requires --fit tile")
            _require_range("--tile-step", self.tile_step, 1, self.size, "px (at most --size)")
            for scale in self.scales if self.pairs else ():
                if self.tile_step % scale:
                    raise UsageError(
                        f"--tile-step {self.tile_step}: expected a multiple of the scale {scale}, because tiles "
                        f"consist of whole LR pixels, e.g. {max(self.tile_step // scale, 1) * scale}"
                    )
        if not 1 <= self.variants <= MAX_VARIANTS:
            raise UsageError(f"--variants {self.variants}: expected 1 to {MAX_VARIANTS}")
        if self.variants > 1 and self.degradation is None:
            raise UsageError(
                f"--variants {self.variants} requires a recipe, because all variants by --method {self.method} would "
                "be identical; pass e.g. --degradation realesrgan"
            )
        if not 0 < self.sample <= 1:
            raise UsageError(f"--sample {self.sample}: expected a fraction above 0 and at most 1, e.g. 0.01 for 1%")
        if self.val is not None and self.val_fraction is not None:
            raise UsageError("--val-fraction excludes --val, whose photos are the validation set; pass one of them")
        if self.val is None and self.val_fraction is None:
            object.__setattr__(self, "val_fraction", DEFAULT_VAL_FRACTION)
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise UsageError(f"--val-fraction {self.val_fraction}: expected a fraction from 0 to below 1, e.g. 0.02")
        if self.shard_bytes < 1:
            raise UsageError(f"--shard-bytes {self.shard_bytes}: expected 1 or more bytes, e.g. 256MB")
        if self.shard_bytes > _MAX_SHARD_BYTES:
            raise UsageError(f"--shard-bytes: expected at most {_MAX_SHARD_BYTES // 10**15} PB, e.g. 256MB")

    def hr_size(self, scale: int) -> int:
        """Return the HR edge in px: `size` rounded down to a multiple of the scale."""
        return self.size - self.size % scale

    def mapped(self, change: Callable[[Address], Address]) -> "Config":
        """Return the settings with another address for each folder, e.g. the absolute one."""
        return replace(
            self,
            input=change(self.input),
            output=change(self.output),
            val=None if self.val is None else change(self.val),
            pairs=self.pairs and self.pairs.mapped(change),
        )

    def files(self, split: str, photos: Iterable[Source], scales: Iterable[int]) -> Iterator[tuple[Address, Source]]:
        """Yield every file from which the samples at the scales are made, as its folder and its path there.

        For each photo (or HR image) in order: the photo, then its counterparts by scale.
        """
        scales = tuple(scales)
        for photo in photos:
            yield self.root(split), photo
            if self.pairs is not None:
                for scale in scales:
                    yield from zip(self.pairs.roots(split).of_scale(scale), photo.counterparts(scale), strict=True)

    def root(self, split: str) -> Address:
        """Return the folder of the photos of a split."""
        return self.val if split == "val" and self.val is not None else self.input

    def tile(self, scale: int) -> tuple[int, int]:
        """Return edge and stride of the tiles in px; those of pairs are multiples of the scale, on the grid of LR."""
        size = self.hr_size(scale) if self.pairs else self.size
        return size, self.tile_step or size

    @property
    def noun(self) -> str:
        """What messages call a `Source`."""
        return "pair" if self.pairs else "photo"

    def num_variants(self, split: str) -> int:
        """Return the number of LR images per sample; validation samples have one."""
        return self.variants if split == "train" else 1

    def settings(self, scale: int) -> dict[str, Any]:
        """Return all settings of one scale's folder, as stored in its manifest."""
        return {
            "scale": scale,
            "size": self.size,
            "hr_size": self.hr_size(scale),
            "fit": self.fit,
            "tile_step": self.tile(scale)[1] if self.fit == "tile" else None,
            "method": self.method,
            "variants": self.variants,
            "up": self.up,
            "sharpen_hr": self.sharpen_hr,
            "codec": self.codec,
            "icc": self.icc,
            "pairs": self.pairs and self.pairs.plain,
            "degradation": self.degradation and self.degradation.plain,
            "sample": self.sample,
            "shard_bytes": self.shard_bytes,
            "val_fraction": self.val_fraction,
            "seed": self.seed,
        }

    def fingerprint(self, scale: int, split: str = "train") -> str:
        """Return a hash of everything but the photo that determines a sample's bytes."""
        return fingerprint_of({**self.settings(scale), "variants": self.num_variants(split)})


def settings_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a manifest of any format version."""
    return {**_SINCE_VERSION_2, **_SINCE_VERSION_3, **manifest["settings"]}


def fingerprint_of(settings: dict[str, Any], algorithm: int = ALGORITHM) -> str:
    """Return `Config.fingerprint` for settings from a manifest. KeyError or TypeError when they are incomplete."""
    fingerprinted = {
        name: settings[name] for name in _FINGERPRINTED if name not in _SINCE_VERSION_2 or name in settings
    }
    fingerprinted |= {name: settings[name] for name in _SINCE_VERSION_3 if name in settings}
    if settings.get("degradation"):
        fingerprinted |= {"degradation": settings["degradation"]["steps"], "seed": settings["seed"]}
    # `...` equals no value, so that all other settings are kept.
    fingerprinted = {name: value for name, value in fingerprinted.items() if _SINCE_VERSION_2.get(name, ...) != value}
    text = json.dumps([1, algorithm, fingerprinted], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _require_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{option} {value!r}: expected one of {', '.join(choices)}")


def _require_range(option: str, value: int, low: int, high: int, unit: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} {value}: expected {low} to {high} {unit}")
