"""Photos that are named in a file to be left out: how such a file is written and read.

UTF-8 text, a photo per line, its path relative to the input with `/`. Empty lines and lines that begin with `#` say
nothing. A line that begins with `"` is a JSON string, for names that a line of text cannot hold.
"""

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shardgen.planning.sources import Listing, Photo, printable
from srshards.errors import UsageError

_BLANKS = " \t"
_MAX_LINE_BYTES = 1 << 16  # the longest path of Linux, 4,096 bytes, takes 24,576 as a JSON string
_EXPECTED = "--exclude takes a text file with the path of a photo on each line."


@dataclass(frozen=True)
class Exclusion:
    """What came of a file of photos to be left out: how many photos it took away, and its names that no photo has."""

    file: Path
    num_photos: int
    unknown: tuple[str, ...] = ()


def exclude_line(path: str) -> str:
    """The line, without its end, that names a photo: its path, as a JSON string where that would not come back."""
    plain = path.isprintable() and path == path.strip() and not path.startswith(("#", '"', "./", "\ufeff"))
    return path if plain else json.dumps(path)


def read_exclude_file(file: Path) -> list[str]:
    """The paths that the file names, each once, in its order. UsageError, with the line, when it cannot be understood.

    Windows line ends, a byte order mark, blanks around a line and `./` before a path are as if they were not there.
    """
    paths: dict[str, None] = {}
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE_BYTES + 1), b""), start=1):
                start = codecs.BOM_UTF8 if number == 1 else b""
                if path := _path_of(line.removeprefix(start), f"{file}, line {number}"):
                    paths[path] = None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}. {_EXPECTED}") from error
    return list(paths)


def _path_of(line: bytes, where: str) -> str | None:
    if len(line) > _MAX_LINE_BYTES:
        raise UsageError(f"{where} is longer than any path. {_EXPECTED}")
    try:
        text = line.decode().removesuffix("\n").removesuffix("\r").strip(_BLANKS)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where} is not UTF-8 ({error.reason}). Save the file as UTF-8; a name that is not UTF-8 itself is "
            'written as a JSON string, e.g. "sky/\\udce9t\\udce9.jpg".'
        ) from error
    if text.startswith("#"):
        return None
    if text.startswith('"'):
        try:
            path = json.loads(text)
        except ValueError as error:
            raise UsageError(
                f"{where} begins with a quotation mark and is no JSON string ({error}). "
                r'Write it as one, e.g. "sky/\"best\" of 2024.jpg".'
            ) from error
    else:
        path = text
    return str(path).removeprefix("./")


def leave_out(listing: Listing, file: Path) -> tuple[Listing, Exclusion]:
    """The listing without the photos that the file names.

    UsageError when it names photos and none of them is there, or when no photo would be left.
    """
    named = read_exclude_file(file)
    wanted = set(named)
    left: list[Photo] = []
    found: set[str] = set()
    for photo in listing.photos:
        if photo.path in wanted:
            found.add(photo.path)
        else:
            left.append(photo)
    if named and not found:
        raise UsageError(
            f"none of the {len(named):,} names in {file} is a photo of the input, e.g. {printable(named[0])[:200]}. "
            f"Expected paths relative to --input such as {printable(_first(listing.photos))}."
        )
    if not left:
        raise UsageError(f"{file} names every one of the {len(found):,} photos: nothing would be left")
    unknown = tuple(path for path in named if path not in found)
    return (
        Listing(left, listing.num_ignored, listing.num_links_passed_over),
        Exclusion(file, len(found), unknown),
    )


def _first(photos: Sequence[Photo]) -> str:
    return min(photo.path for photo in photos)
