"""What can happen to bytes on a disk, done to a file or to two of them."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

_PAGE = 4096
_BLOCK = 512  # of a tar

Damage = Callable[[Path, random.Random], str]


def flip(path: Path, rng: random.Random) -> str:
    """One bit."""
    data, place, bit = bytearray(path.read_bytes()), rng.randrange(path.stat().st_size), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} of {path.name} flipped"


def flip_many(path: Path, rng: random.Random) -> str:
    """Some bits all over the file."""
    places = [flip(path, rng) for _ in range(rng.randint(2, 20))]
    return "; ".join(places)


def cut(path: Path, rng: random.Random) -> str:
    """A file that ends early: at a block or a line, or one byte beside it, or anywhere."""
    data = path.read_bytes()
    lines = [place + 1 for place, byte in enumerate(data) if byte == 10]
    boundaries = range(0, len(data), _BLOCK) if path.suffix == ".tar" else lines or [0]
    size = min(max(rng.choice([*boundaries, rng.randrange(len(data))]) + rng.choice((-1, 0, 0, 1)), 0), len(data) - 1)
    path.write_bytes(data[:size])
    return f"{path.name} cut to {size} bytes"


def zero_page(path: Path, rng: random.Random) -> str:
    """A page that was never written."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data)) // _PAGE * _PAGE
    data[start : start + _PAGE] = bytes(len(data[start : start + _PAGE]))
    path.write_bytes(data)
    return f"page at {start} of {path.name} zeroed"


def copy_page(path: Path, rng: random.Random) -> str:
    """A block that was written to the wrong place."""
    data = bytearray(path.read_bytes())
    source, target = (rng.randrange(max(1, len(data) // _BLOCK)) * _BLOCK for _ in range(2))
    block = data[source : source + _BLOCK]
    data[target : target + len(block)] = block
    path.write_bytes(data)
    return f"block at {source} of {path.name} also at {target}"


def change_digit(path: Path, rng: random.Random) -> str:
    """Another number, for text: the file looks sound."""
    data = bytearray(path.read_bytes())
    places = [place for place, byte in enumerate(data) if 48 <= byte < 58]
    place = rng.choice(places)
    data[place] = rng.choice([digit for digit in range(48, 58) if digit != data[place]])
    path.write_bytes(data)
    return f"another digit at {place} of {path.name}"


def swap_lines(path: Path, rng: random.Random) -> str:
    """Two lines, for text."""
    lines = path.read_bytes().splitlines(keepends=True)
    one, other = (rng.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]
    path.write_bytes(b"".join(lines))
    return f"lines {one} and {other} of {path.name} swapped"


def swap_with_another(path: Path, rng: random.Random) -> str:
    """Two files of one kind."""
    other = rng.choice([p for p in sorted(path.parent.glob(f"*{path.suffix}")) if p != path])
    temporary = path.with_name("x")
    path.rename(temporary)
    other.rename(path)
    temporary.rename(other)
    return f"{path.name} and {other.name} swapped"


def overwrite_with_another(path: Path, rng: random.Random) -> str:
    """Another shard's file in the place of this one."""
    other = rng.choice([p for p in sorted(path.parent.glob(f"*{path.suffix}")) if p != path])
    shutil.copyfile(other, path)
    return f"{other.name} copied over {path.name}"


def swap_shards(path: Path, rng: random.Random) -> str:
    """All files of two shards."""
    other = rng.choice([p for p in sorted(path.parent.glob("*.tar")) if p.stem != path.stem])
    for suffix in (".tar", ".idx", ".json"):
        ours, theirs = path.with_suffix(suffix), other.with_suffix(suffix)
        content = ours.read_bytes()
        shutil.copyfile(theirs, ours)
        theirs.write_bytes(content)
    return f"{path.stem} and {other.stem} swapped"


_ANY: tuple[Damage, ...] = (flip, flip_many, cut, zero_page, copy_page)
_FILES: tuple[Damage, ...] = (swap_with_another, overwrite_with_another)
OF_KIND: dict[str, tuple[Damage, ...]] = {
    "tar": (*_ANY, *_FILES, swap_shards),
    "idx": (*_ANY, *_FILES, change_digit, change_digit, swap_lines),
    "manifest": (flip, flip, flip_many, cut, zero_page, change_digit, change_digit, swap_lines),
    "json": (*_ANY, *_FILES, change_digit),
}


def damage_folder(folder: Path, rng: random.Random) -> str:
    """Something happens to a folder of shards. Returns what, in words."""
    kind = rng.choice(("tar", "tar", "idx", "idx", "manifest", "manifest", "json"))
    tars = sorted(folder.glob("*.tar"))
    path = folder / "manifest.json" if kind == "manifest" else rng.choice(tars).with_suffix(f".{kind}")
    return rng.choice(OF_KIND[kind])(path, rng)
