"""Generate the triplets that all cases read, once, and write them as three plain arrays."""

import mmap
import os
from pathlib import Path

import numpy as np

from benchmarks.common import PhotoSet, python_module, timed_command
from benchmarks.peers.task import SCALE
from srshards.format import image_names, load_manifest
from srshards.shards.tar_index import load_index

HR_PX = 512
NO_UP = "npy-no-up"  # name of the store of npy shards without upsampled images
_NPY_HEADER_BYTES = 128


def make_shards(photos: PhotoSet, folder: Path, codec: str, up: bool = True) -> Path:
    """Generate 4x shards of all photos, without validation split; return the folder of the scale."""
    options = ("-s", SCALE, "--size", HR_PX, "--method", "cubic", "--val-fraction", 0, *(() if up else ("--no-up",)))
    timed_command(
        python_module("shardgen", "generate", "-i", photos.root, "-o", folder, *options, "--codec", codec, "--auto")
    )
    return folder / f"scale_{SCALE}x"


def write_triplets(shards: Path, folder: Path) -> int:
    """Write `hr.npy`, `up.npy`, `lr.npy`, N x size x size x 3 uint8 RGB each, from npy shards; return N."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = load_manifest(shards)
    count = sum(record.samples for record in manifest.shards)
    for name in image_names(1, has_up=True):
        size = manifest.hr_size // (SCALE if name == "lr" else 1)
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (count, size, size, 3))
        number = 0
        for record in manifest.shards:
            tar = shards / f"{record.name}.tar"
            with open(tar, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for sample in load_index(tar.with_suffix(".idx")):
                    (member,) = (member for member in sample if member.extension == f"{name}.npy")
                    pixels = content[member.offset + _NPY_HEADER_BYTES : member.offset + member.size]
                    out[number] = np.frombuffer(pixels, np.uint8).reshape(size, size, 3)
                    number += 1
        out.flush()
    os.sync()  # so that no case is timed while this is written to disk
    return count
