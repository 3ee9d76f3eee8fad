"""The ways that are compared, and what is wanted of their ratios."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.report import spread

TOUCHES = ("untouched", "copied")  # batches left alone; copied by the training process into memory of its own
OURS, OWN, PEERS, FFCV = "ours", "own", "peers", "ffcv"


@dataclass(frozen=True)
class Way:
    """A module of `peers` with what it is told.

    `where` is the environment that it runs in: this project's (`ours` and `own`), that of the peers, or FFCV's.
    `store` names its folder: ways that read the same files share one.
    """

    name: str
    what: str
    module: str
    where: str
    store: str
    variant: str = ""
    workers: int = 2
    input: str = "up"
    patch: int = 192
    crops: int = 1


def ours(codec: str, input_name: str, workers: int, patch: int = 192, crops: int = 1) -> Way:
    """This project's loader over shards of a codec."""
    name = our_name(codec, input_name, workers, patch, crops)
    what = f"this project's loader, {codec} shards, input {input_name}, {workers} workers"
    return Way(name, what, "ours", OURS, codec, "", workers, input_name, patch, crops)


def our_name(codec: str, input_name: str = "up", workers: int = 2, patch: int = 192, crops: int = 1) -> str:
    """E.g. `ours npy, up, 2 workers`."""
    size = f", {patch} px" if patch != 192 else ""
    several = f", {crops} crops" if crops != 1 else ""
    return f"ours {codec}, {input_name}, {workers} worker{'s' if workers != 1 else ''}{size}{several}"


_MAP_STYLE = "crops by a map-style dataset in a plain DataLoader"
PEER_WAYS = (
    Way("PyTorch, samples", f"mapped npy arrays, {_MAP_STYLE}, collated", "torch_loader", OWN, "torch", "samples"),
    Way("PyTorch, batch", "the same, the worker writes one pair of tensors", "torch_loader", OWN, "torch", "assembled"),
    Way("online", "JPEG decoded, resized, degraded and cut for every patch", "online", OWN, "online"),
    Way("loose PNG", f"PNG files, OpenCV, {_MAP_STYLE}", "png_files", OWN, "png_files"),
    Way("WebDataset raw", "tars of npy, WebLoader", "wds_shards", PEERS, "wds_raw", "raw"),
    Way("WebDataset PNG", 'tars of PNG, decode("rgb8"), WebLoader', "wds_shards", PEERS, "wds_png", "png"),
    Way("wids raw", f"mapped tars of pixels, {_MAP_STYLE}", "wids_shards", PEERS, "wids"),
    Way("LMDB raw", f"a value of pixels per image, {_MAP_STYLE}", "lmdb_store", PEERS, "lmdb_raw", "raw"),
    Way("LMDB PNG", f"a PNG per image, OpenCV, {_MAP_STYLE}", "lmdb_store", PEERS, "lmdb_png", "png"),
    Way("MosaicML raw", "MDS of arrays, StreamingDataLoader", "mosaic", PEERS, "mosaic_raw", "raw"),
    Way("MosaicML PNG", "MDS of PNG, StreamingDataLoader", "mosaic", PEERS, "mosaic_png", "png"),
    Way("litdata raw", "chunks of arrays, StreamingDataLoader", "lit_data", PEERS, "litdata"),
    Way("Arrow raw", f"mapped IPC file of pixels, {_MAP_STYLE}", "arrow_file", PEERS, "arrow"),
    Way("FFCV raw", "beton of pixels, compiled decoder that cuts, 2 threads", "ffcv_beton", FFCV, "ffcv"),
)
TURNED = Way("ours npy, up, turned", "the same, each patch turned as in training", "ours", OURS, "npy", "turned")
OUR_WAYS = (
    *(ours(codec, name, workers) for codec in ("npy", "png", "webp") for name in ("up", "lr") for workers in (2, 1, 0)),
    *(ours(codec, "up", 2, crops=4) for codec in ("png", "webp")),
    TURNED,
)
SCALING_WAYS = tuple(
    ours("npy", "up", workers, patch) for patch in (64, 128, 192, 256) for workers in (1, 2) if patch != 192
)


@dataclass(frozen=True)
class Ratio:
    """Patches per second of `top` over those of the fastest of `bottoms`, found anew in each round."""

    name: str
    top: str
    bottoms: tuple[str, ...]
    touch: str
    at_least: float
    strictly: bool = False

    @property
    def wanted(self) -> str:
        return f"{'more than' if self.strictly else 'at least'} {self.at_least:g}"

    def is_met(self, value: float) -> bool:
        return value > self.at_least if self.strictly else value >= self.at_least


_NPY = our_name("npy")
_TORCH = ("PyTorch, samples", "PyTorch, batch")
_RAW_STORES = ("WebDataset raw", "wids raw", "litdata raw", "MosaicML raw", "Arrow raw", "LMDB raw")
RATIOS = (
    Ratio("npy over PyTorch's own hand-over", _NPY, _TORCH, "untouched", 9),
    Ratio("npy over the best store of raw pixels", _NPY, _RAW_STORES, "untouched", 10),
    Ratio("npy over online decoding", _NPY, ("online",), "untouched", 100),
    Ratio("npy over FFCV, untouched", _NPY, ("FFCV raw",), "untouched", 0.9),
    Ratio("npy over FFCV, copied out", _NPY, ("FFCV raw",), "copied", 1, strictly=True),
    Ratio("png, 4 crops, over online decoding", our_name("png", crops=4), ("online",), "untouched", 1.8),
    Ratio("webp, 4 crops, over online decoding", our_name("webp", crops=4), ("online",), "untouched", 1.8),
    Ratio("npy, LR input over up input", our_name("npy", "lr"), (_NPY,), "untouched", 1.3),
)

# By way and touch: patches per second, one figure per round.
Rates = Mapping[str, Mapping[str, Sequence[float]]]


def judge(ratio: Ratio, rates: Rates) -> dict[str, Any]:
    """The ratio in each round, its median, and whether that is what is wanted; or which way is missing.

    Of several bottoms the missing ones are left out, and named, as long as one is there.
    """
    heading = {"name": ratio.name, "wanted": ratio.wanted, "touch": ratio.touch, "top": ratio.top}
    if ratio.top not in rates:
        return {**heading, "unavailable": ratio.top}
    present = [name for name in ratio.bottoms if name in rates]
    missing = [name for name in ratio.bottoms if name not in rates]
    if not present:
        return {**heading, "unavailable": ", ".join(missing)}
    best = [max(row) for row in zip(*(rates[name][ratio.touch] for name in present), strict=True)]
    values = [top / bottom for top, bottom in zip(rates[ratio.top][ratio.touch], best, strict=True)]
    fastest = max(present, key=lambda name: median(rates[name][ratio.touch]))
    found = {"bottom": fastest, "missing": missing, "ratio": spread(values, 2)}
    return {**heading, **found, "met": ratio.is_met(median(values))}
