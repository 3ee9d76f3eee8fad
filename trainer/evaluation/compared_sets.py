"""The images that several networks are compared on: every set at their scale, with the inputs that they take."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from srshards.errors import UsageError
from srshards.shards.folder import Shards
from trainer.evaluation.checks import check_photos
from trainer.evaluation.set_names import NamedSet
from trainer.evaluation.sets import EvaluationSet, PhotoSet, ShardSet, open_set
from trainer.models import Network


@dataclass(frozen=True)
class ImageSource:
    """Where the images are from: a split of shards or a folder of HR photos, or neither; and further named sets.

    All images must be large enough for the `metrics`. `cache` and `cache_bytes` are those of `open_shards`.
    """

    shards: Shards | None
    split: str
    hr: Path | None
    named: Sequence[NamedSet]
    metrics: Sequence[str]
    cache: Path | None = None
    cache_bytes: int | None = None


def common_scale(networks: Mapping[Path, Network], shards: Shards | None, scale: int | None) -> int:
    """Return the scale at which to compare networks, by weights file. `scale` is the requested one, if any.

    Networks of scale 1 take upsampled images of any scale. UsageError if the others, the shards or `scale` differ.
    """
    if shards is not None:
        if scale not in (None, shards.scale):
            raise UsageError(f"--scale {scale}: the shards in {shards.path} are {shards.scale}x; omit --scale")
        for weights, network in networks.items():
            if network.spec.scale not in (1, shards.scale):
                raise UsageError(
                    f"{weights} upscales {network.spec.scale}x, but {shards.path} is {shards.scale}x; pass weights and "
                    "data of the same scale"
                )
        return shards.scale
    upscaling = [(weights, network.spec.scale) for weights, network in networks.items() if network.spec.scale != 1]
    for weights, other in upscaling[1:]:
        if other != upscaling[0][1]:
            raise UsageError(
                f"{upscaling[0][0]} upscales {upscaling[0][1]}x, but {weights} upscales {other}x; pass weights of the "
                "same scale"
            )
    if not upscaling and scale is None:
        weights = next(iter(networks))
        raise UsageError(f"{weights} takes upsampled images of any scale; pass the scale, e.g. --scale 4")
    if upscaling and scale not in (None, upscaling[0][1]):
        weights, other = upscaling[0]
        raise UsageError(f"{weights} upscales {other}x, not {scale}x; omit --scale, or pass other --weights")
    return scale or upscaling[0][1]


def open_sets(source: ImageSource, scale: int, inputs: Iterable[bool]) -> list[dict[bool, EvaluationSet]]:
    """Open each set once for every input that a network takes: upsampled LR (True) or LR (False).

    UsageError if two sets have the same name, or a set has no images, lacks an input, or cannot be evaluated, as far as
    manifests and the headers of photos say.
    """
    sets = [{upsampled: open_one(upsampled) for upsampled in inputs} for open_one in _openers(source, scale)]
    firsts = [next(iter(by_input.values())) for by_input in sets]
    seen: dict[str, str] = {}
    for one in firsts:
        if not one.num_images:
            other = "val" if source.split == "train" else "train"
            raise UsageError(f"no images in {one.source}; pass --split {other}, or other --shards")
        if one.name in seen:
            raise UsageError(f"two sets have the name {one.name!r}: {seen[one.name]} and {one.source}; name the second")
        seen[one.name] = one.source
    check_photos(chain.from_iterable(one.photos for one in firsts), scale, source.metrics)
    return sets


def _openers(source: ImageSource, scale: int) -> Iterator[Callable[[bool], EvaluationSet]]:
    """Yield for each set the function that opens it for networks with upsampled input, or with LR."""
    if source.shards is not None:
        yield partial(ShardSet, source.split, source.shards, source.split, metrics=source.metrics)
    if source.hr is not None:
        yield partial(PhotoSet, source.hr.resolve().name, source.hr, scale)
    for named in source.named:
        yield partial(
            open_set, named, scale, metrics=source.metrics, cache=source.cache, cache_bytes=source.cache_bytes
        )
