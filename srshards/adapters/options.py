"""The options of a framework's dataset, checked and translated into the arguments of srshards."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import expanduser  # Path.expanduser fails for unknown users, and would change s3://
from typing import Any, Literal

from srshards.errors import ArgumentError, WorkerDiedError
from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards

# Keys of `io_backend`, besides `type`: arguments of `srshards.open` and of `PatchLoader`.
_OPEN_KEYS = ("cache", "cache_bytes", "decode")
_LOADER_KEYS = ("prefetch", "patches_per_sample")
_KEYS = ("type", "path", *_OPEN_KEYS, *_LOADER_KEYS)

# Options of the frameworks' datasets of image files.
_OF_FILES = ("dataroot_gt", "dataroot_lq", "meta_info", "meta_info_file")
_OF_PIXELS = ("mean", "std", "color")


@dataclass(frozen=True)
class OptionNames:
    """What a framework calls the options of a training dataset.

    `patch_size` is in px of HR or, with `in_lr_px`, of LR. `accumulate` counts batches per iteration, if there is such
    an option.
    """

    patch_size: str
    batch_size: str
    accumulate: str | None = None
    in_lr_px: bool = False

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Replace the argument names in an error of srshards by those of the framework's options."""
        size = f"`{self.patch_size}`"
        names = {
            "patch_size": f"{size} x `scale`" if self.in_lr_px else size,
            "batch_size": f"`{self.batch_size}`",
            "workers": "`num_worker_per_gpu`",
            "seed": "`manual_seed`",
            **{name: f"`io_backend: {name}`" for name in _KEYS},
        }
        try:
            yield
        except (ArgumentError, WorkerDiedError) as error:
            message = re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), str(error))
            raise type(error)(message) from error


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training dataset: HR px of a patch, patches per batch, and batches per iteration.

    `workers` is None for this process's share of the CPUs. `loader` are further arguments of `PatchLoader`.
    """

    patch_size: int
    batch_size: int
    accumulate: int
    workers: int | None
    augment: bool
    loader: Mapping[str, Any]


def open_folder(opt: Mapping[str, Any]) -> Shards:
    """Open the shards that `io_backend` names. ArgumentError if it is wrong, or beside options of image files."""
    backend = opt.get("io_backend")
    if not isinstance(backend, Mapping) or backend.get("type") != "shards" or not isinstance(backend.get("path"), str):
        raise ArgumentError(
            f"`io_backend`: expected type shards and the path of a folder of one scale, found {_shown(backend)}; "
            "write e.g. `io_backend: {type: shards, path: shards/scale_4x}`"
        )
    if unknown := [name for name in backend if name not in _KEYS]:
        raise ArgumentError(f"`io_backend`: unknown option {', '.join(unknown)}; the options are {', '.join(_KEYS)}")
    if unused := [name for name in _OF_FILES if opt.get(name)]:
        raise ArgumentError(f"{_listed(unused)} would have no effect: the shards contain HR and LR; {_delete(unused)}")
    if unsupported := [name for name in _OF_PIXELS if opt.get(name) is not None]:
        raise ArgumentError(
            f"{_listed(unsupported)} would have no effect: images are RGB in [0, 1]; {_delete(unsupported)}"
        )
    path = backend["path"]
    if not isinstance(decode := backend.get("decode"), bool | None):
        raise ArgumentError(f"`io_backend: decode` {decode!r}: expected true or false")
    arguments = {name: backend[name] for name in _OPEN_KEYS if backend.get(name) is not None}
    return open_shards(expanduser(path), **arguments)


def input_of(opt: Mapping[str, Any], shards: Shards) -> Literal["lr", "up"]:
    """Return the image that networks of this scale enlarge: LR or, at scale 1, the upsampled image.

    ArgumentError for any other scale.
    """
    scale = opt.get("scale")
    if scale == shards.scale:
        return "lr"
    if scale == 1:
        shards.inputs("up")
        return "up"
    raise ArgumentError(
        f"`scale` {scale!r}: {shards.path} has images for scale {shards.scale}; set `scale` to {shards.scale}, or to 1 "
        "for a network whose input is the upsampled image"
    )


def train_options(opt: Mapping[str, Any], names: OptionNames) -> TrainOptions:
    """Return the options of a training dataset. ArgumentError if one is missing or cannot be satisfied."""
    for name in (names.patch_size, names.batch_size):
        value = opt.get(name)
        if value is None:
            raise ArgumentError(f"`{name}` is not set; a training dataset needs it")
        if not isinstance(value, int):
            raise ArgumentError(f"`{name}` {value!r}: expected an integer")
    flips, rotations = (bool(opt.get(name, True)) for name in ("use_hflip", "use_rot"))
    if flips != rotations:
        raise ArgumentError(
            f"`use_hflip` {flips} and `use_rot` {rotations}: shards are read with both or neither; set them alike"
        )
    workers = opt.get("num_worker_per_gpu")
    backend = opt["io_backend"]
    return TrainOptions(
        patch_size=opt[names.patch_size] * (opt["scale"] if names.in_lr_px else 1),
        batch_size=opt[names.batch_size],
        accumulate=opt.get(names.accumulate, 1) if names.accumulate else 1,
        workers=None if workers == "auto" else workers,
        augment=flips,
        loader={name: backend[name] for name in _LOADER_KEYS if backend.get(name) is not None},
    )


def _listed(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _delete(names: list[str]) -> str:
    return "delete them" if len(names) > 1 else "delete it"


def _shown(backend: object) -> str:
    return repr(dict(backend)) if isinstance(backend, Mapping) else repr(backend)
