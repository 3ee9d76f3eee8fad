"""Folders and LMDBs of pairs, for the tests of their discovery."""

import io
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image

from shardgen.pairs.find import PairListing

NAMES = ("mountain/img1", "mountain/img2", "sky/img1")


def image(path: Path, edge: int = 48, height: int = 0) -> Path:
    """Write an image whose content depends on its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = tuple(int(value) for value in np.random.default_rng(list(path.name.encode())).integers(0, 256, 3))
    Image.new("RGB", (edge, height or edge), colour).save(path)
    return path


def images(root: Path, names: Sequence[str], edge: int = 48) -> Path:
    for name in names:
        image(root / name, edge)
    return root


def named(template: str, names: Sequence[str] = NAMES) -> list[str]:
    return [template.format(name) for name in names]


def matched(listing: PairListing) -> dict[str, list[tuple[int, str]]]:
    """Return the LR paths of each HR path."""
    return {pair.path: [(scale, lr.path) for scale, lr in pair.lrs] for pair in listing.pairs}


def old_scripts(root: Path, scale: int, edge: int = 12) -> Path:
    images(root / f"scale_{scale}x", named(f"{{}}_lr_{scale}x.png"), edge)
    images(root / f"scale_{scale}x", named(f"{{}}_upsampled_{scale}x.png"), edge * scale)
    return root


def write_lmdb(folder: Path, files: Sequence[Path], root: Path) -> Path:
    """Write an LMDB as BasicSR's make_lmdb_from_imgs does."""
    environment = lmdb.open(str(folder), map_size=1 << 24)
    with environment.begin(write=True) as transaction, open(folder / "meta_info.txt", "w") as text:
        for file in files:
            key = str(file.relative_to(root).with_suffix(""))
            stream = io.BytesIO()
            with Image.open(file) as picture:
                picture.save(stream, "PNG")
                text.write(f"{key}.png ({picture.height},{picture.width},3) 1\n")
            transaction.put(key.encode("ascii"), stream.getvalue())
    environment.close()
    return folder
