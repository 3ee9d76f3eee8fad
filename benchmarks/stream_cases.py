"""The cases of `bench_stream`, and the targets for their ratios."""

from dataclasses import dataclass

from benchmarks.report import Ratio
from benchmarks.stream_stores import NO_UP
from srshards.format import CODECS, CROP_CODECS

TOUCHES = ("untouched", "copied")  # batches dropped; copied by the training process into its own arrays
OURS, THIS_ENV, PEERS, FFCV = "ours", "this environment", "peers", "ffcv"


@dataclass(frozen=True)
class Case:
    """A module of `peers` and its settings.

    `where` is its environment: this project's (`OURS` with this project's loader, `THIS_ENV` without it), that of the
    peers, or FFCV's. `store` is the name of its folder; cases that read the same files share one.
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


def ours(codec: str, input_name: str, workers: int, patch: int = 192, crops: int = 1) -> Case:
    """Return the case of this project's loader over shards of a codec."""
    name = our_name(codec, input_name, workers, patch, crops)
    what = f"this project's loader, {codec} shards, input {input_name}, {workers} workers"
    return Case(name, what, "ours", OURS, codec, "", workers, input_name, patch, crops)


def our_name(codec: str, input_name: str = "up", workers: int = 2, patch: int = 192, crops: int = 1) -> str:
    """Return e.g. `ours npy, up, 2 workers`."""
    size = f", {patch} px" if patch != 192 else ""
    several = f", {crops} crops" if crops != 1 else ""
    return f"ours {codec}, {input_name}, {workers} worker{'s' if workers != 1 else ''}{size}{several}"


_MAP_STYLE = "crops by a map-style dataset in a plain DataLoader"
PEER_CASES = (
    Case(
        "PyTorch, samples", f"mapped npy arrays, {_MAP_STYLE}, collated", "torch_loader", THIS_ENV, "torch", "samples"
    ),
    Case("PyTorch, batch", "the same, assembled by the worker", "torch_loader", THIS_ENV, "torch", "assembled"),
    Case("online", "JPEG decoded, resized, degraded and cut for every patch", "online", THIS_ENV, "online"),
    Case("loose PNG", f"PNG files, OpenCV, {_MAP_STYLE}", "png_files", THIS_ENV, "png_files"),
    Case("WebDataset raw", "tars of npy, WebLoader", "wds_shards", PEERS, "wds_raw", "raw"),
    Case("WebDataset PNG", 'tars of PNG, decode("rgb8"), WebLoader', "wds_shards", PEERS, "wds_png", "png"),
    Case("wids raw", f"mapped tars of pixels, {_MAP_STYLE}", "wids_shards", PEERS, "wids"),
    Case("LMDB raw", f"a value of pixels per image, {_MAP_STYLE}", "lmdb_store", PEERS, "lmdb_raw", "raw"),
    Case("LMDB PNG", f"a PNG per image, OpenCV, {_MAP_STYLE}", "lmdb_store", PEERS, "lmdb_png", "png"),
    Case("MosaicML raw", "MDS of arrays, StreamingDataLoader", "mosaic", PEERS, "mosaic_raw", "raw"),
    Case("MosaicML PNG", "MDS of PNG, StreamingDataLoader", "mosaic", PEERS, "mosaic_png", "png"),
    Case("litdata raw", "chunks of arrays, StreamingDataLoader", "lit_data", PEERS, "litdata"),
    Case("Arrow raw", f"mapped IPC file of pixels, {_MAP_STYLE}", "arrow_file", PEERS, "arrow"),
    Case("FFCV raw", "beton of pixels, compiled decoder that cuts, 2 threads", "ffcv_beton", FFCV, "ffcv"),
)
_TURNED = "the same, with flips and rotations"
AUGMENTED = tuple(
    Case(f"ours {codec}, {name}, augmented", _TURNED, "ours", OURS, codec, "augmented", input=name)
    for codec in ("npy", "tlc")
    for name in ("up", "lr")
)
COMPUTED = Case("ours npy, computed up", "npy shards without up, which is computed from LR", "ours", OURS, NO_UP)
OUR_CASES = (
    *(ours(codec, name, workers) for codec in CODECS for name in ("up", "lr") for workers in (2, 1, 0)),
    *(ours(codec, "up", 2, crops=4) for codec in CODECS if codec not in CROP_CODECS),
    *AUGMENTED,
    COMPUTED,
)
SCALING_CASES = tuple(
    ours("npy", "up", workers, patch) for patch in (64, 128, 192, 256) for workers in (1, 2) if patch != 192
)


FLOOR = "two processes that only copy"
_NPY, _NPY_LR = our_name("npy"), our_name("npy", "lr")
_TORCH = ("PyTorch, samples", "PyTorch, batch")
_RAW_STORES = ("WebDataset raw", "wids raw", "litdata raw", "MosaicML raw", "Arrow raw", "LMDB raw")
# Each with the treatment of the batches that it applies to.
RATIOS = (
    ("untouched", Ratio("npy over two processes that only copy", _NPY, (FLOOR,), at_least=0.7)),
    ("untouched", Ratio("npy over PyTorch's own hand-over", _NPY, _TORCH, at_least=11)),
    ("untouched", Ratio("npy over the best store of raw pixels", _NPY, _RAW_STORES, at_least=13)),
    ("untouched", Ratio("npy over online decoding", _NPY, ("online",), at_least=125)),
    ("untouched", Ratio("npy over FFCV, untouched", _NPY, ("FFCV raw",), at_least=1.4)),
    ("copied", Ratio("npy over FFCV, copied out", _NPY, ("FFCV raw",), at_least=1.2)),
    ("untouched", Ratio("npy, augmented over straight, up input", AUGMENTED[0].name, (_NPY,), at_least=0.8)),
    (
        "untouched",
        Ratio("npy, augmented over straight, LR input", AUGMENTED[1].name, (our_name("npy", "lr"),), at_least=0.8),
    ),
    ("untouched", Ratio("tlc over png, LR input", our_name("tlc", "lr"), (our_name("png", "lr"),), at_least=12)),
    ("untouched", Ratio("tlc over online decoding", our_name("tlc", "lr"), ("online",))),
    ("untouched", Ratio("png, 4 crops, over online decoding", our_name("png", crops=4), ("online",), at_least=1.8)),
    ("untouched", Ratio("webp, 4 crops, over online decoding", our_name("webp", crops=4), ("online",), at_least=1.8)),
    ("untouched", Ratio("npy, LR input over up input", _NPY_LR, (_NPY,), at_least=1.3)),
)
