"""BasicSR's text files of image names.

A line is `0001_s001.png (480,480,3)` or `gt/0001.png, lq/0001.png`. The former also lists the images of an LMDB.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from srshards.errors import UsageError
from srshards.format import Address
from srshards.storage.store import read_bytes

# The shape, and in an LMDB also the compression level.
_SHAPE = re.compile(r"\s+\(\s*\d+\s*,\s*\d+\s*(?:,\s*\d+\s*)?\)(?:\s+\d+)?$")


class Line(NamedTuple):
    """A line of a file: its number, the path of the HR image (or of any image), and that of the LR image."""

    number: int
    path: str
    lr: str | None


@dataclass(frozen=True)
class MetaInfo:
    """The lines of a file, without empty ones."""

    file: Address
    lines: tuple[Line, ...]

    @property
    def has_lr(self) -> bool:
        """Whether the lines list HR and LR images."""
        return self.lines[0].lr is not None


def read_meta_info(file: Address) -> MetaInfo:
    """Read a file.

    UsageError when it cannot be read, is not such a file, or lists an image twice.
    """
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 ({error.reason}); pass BasicSR's meta_info text file") from error
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; pass BasicSR's meta_info text file") from error
    lines = [line for number, raw in enumerate(text.split("\n"), start=1) if (line := _parsed(number, raw))]
    if not lines:
        raise UsageError(f"{file} lists no image; expected lines such as `0001_s001.png (480,480,3)`")
    if len({line.lr is None for line in lines}) > 1:
        odd = next(line for line in lines if (line.lr is None) != (lines[0].lr is None))
        raise UsageError(
            f"{file} lists HR and LR in line {lines[0].number if lines[0].lr else odd.number}, but only one of them in "
            f"line {odd.number if lines[0].lr else lines[0].number}; use the same form in all lines"
        )
    first: dict[str, int] = {}
    for line in lines:
        if first.setdefault(line.path, line.number) != line.number:
            raise UsageError(
                f"{file}, line {line.number} lists {line.path} again after line {first[line.path]}; remove one of them"
            )
    return MetaInfo(file, tuple(lines))


def _parsed(number: int, raw: str) -> Line | None:
    text = _SHAPE.sub("", raw.strip())
    if not text:
        return None
    path, separator, lr = text.partition(", ")
    return Line(number, _relative(path), _relative(lr) if separator else None)


def _relative(path: str) -> str:
    return path.strip().removeprefix("./")
