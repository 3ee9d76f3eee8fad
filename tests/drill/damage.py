"""Damage that files on a disk can suffer. Each function returns a description."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

_PAGE = 4096
_BLOCK = 512  # of a tar


def flip(data: bytearray, rng: random.Random) -> str:
    """Flip one bit."""
    position, bit = rng.randrange(len(data)), rng.randrange(8)
    data[position] ^= 1 << bit
    return f"bit {bit} of byte {position} flipped"


def flip_many(data: bytearray, rng: random.Random) -> str:
    """Flip 2 to 20 bits."""
    return "; ".join(flip(data, rng) for _ in range(rng.randint(2, 20)))


def cut(data: bytearray, rng: random.Random) -> str:
    """Truncate at a block of a tar or a line of a text file, one byte before or after it, or anywhere."""
    is_tar = data[257:262] == b"ustar"
    lines = [position + 1 for position, byte in enumerate(data) if byte == 10]
    boundaries = range(0, len(data), _BLOCK) if is_tar else lines or [0]
    size = rng.choice([*boundaries, rng.randrange(len(data))]) + rng.choice((-1, 0, 0, 1))
    del data[min(max(size, 0), len(data) - 1) :]
    return f"cut to {len(data)} bytes"


def zero_page(data: bytearray, rng: random.Random) -> str:
    """Zero a page, as if it had never been written."""
    start = rng.randrange(len(data)) // _PAGE * _PAGE
    data[start : start + _PAGE] = bytes(len(data[start : start + _PAGE]))
    return f"page at {start} zeroed"


def copy_block(data: bytearray, rng: random.Random) -> str:
    """Copy a block to another position, as if it had been written to the wrong one."""
    source, target = (rng.randrange(max(1, len(data) // _BLOCK)) * _BLOCK for _ in range(2))
    block = data[source : source + _BLOCK]
    data[target : target + len(block)] = block
    return f"block at {source} copied to {target}"


def change_digit(data: bytearray, rng: random.Random) -> str:
    """Change a digit of a text file, which usually remains parsable."""
    position = rng.choice([position for position, byte in enumerate(data) if 48 <= byte < 58])
    data[position] = rng.choice([digit for digit in range(48, 58) if digit != data[position]])
    return f"digit at {position} changed"


def swap_lines(data: bytearray, rng: random.Random) -> str:
    """Swap two lines of a text file."""
    lines = data.splitlines(keepends=True)
    one, other = (rng.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]
    data[:] = b"".join(lines)
    return f"lines {one} and {other} swapped"


def swap_files(path: Path, rng: random.Random) -> str:
    """Swap two files of the same kind."""
    other = _another(path, path.suffix, rng)
    _swap(path, other)
    return f"swapped with {other.name}"


def overwrite_file(path: Path, rng: random.Random) -> str:
    """Overwrite the file with that of another shard."""
    other = _another(path, path.suffix, rng)
    shutil.copyfile(other, path)
    return f"overwritten with {other.name}"


def swap_shards(path: Path, rng: random.Random) -> str:
    """Swap all files of two shards."""
    other = _another(path, ".tar", rng)
    for suffix in (".tar", ".idx", ".json"):
        _swap(path.with_suffix(suffix), other.with_suffix(suffix))
    return f"and its index and marker swapped with those of {other.stem}"


def _another(path: Path, suffix: str, rng: random.Random) -> Path:
    return rng.choice([other for other in sorted(path.parent.glob(f"*{suffix}")) if other.stem != path.stem])


def _swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    shutil.copyfile(other, one)
    other.write_bytes(content)


_BYTES = (flip, flip_many, cut, zero_page, copy_block)
_FILES = (swap_files, overwrite_file)
OF_KIND: dict[str, tuple[Callable[..., str], ...]] = {
    "tar": (*_BYTES, *_FILES, swap_shards),
    "idx": (*_BYTES, *_FILES, change_digit, change_digit, swap_lines),
    "manifest": (flip, flip, flip_many, cut, zero_page, change_digit, change_digit, swap_lines),
    "json": (*_BYTES, *_FILES, change_digit),
}


def damage_folder(folder: Path, rng: random.Random) -> str:
    """Damage a random file of a shard folder."""
    kind = rng.choice(("tar", "tar", "idx", "idx", "manifest", "manifest", "json"))
    tars = sorted(folder.glob("*.tar"))
    path = folder / "manifest.json" if kind == "manifest" else rng.choice(tars).with_suffix(f".{kind}")
    damage = rng.choice(OF_KIND[kind])
    if damage in (*_FILES, swap_shards):
        return f"{path.name} {damage(path, rng)}"
    data = bytearray(path.read_bytes())
    description = damage(data, rng)
    path.write_bytes(data)
    return f"{path.name}: {description}"
