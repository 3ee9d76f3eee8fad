"""Read and write the file of photos to exclude.

The file is UTF-8 text with one photo per line, as its `/`-separated path relative to the input. Empty lines and lines
that begin with `#` are ignored. A line that begins with `"` is a JSON string, for names that do not fit on a line of
text.
"""

import codecs
import json
from dataclasses import dataclass, replace
from pathlib import Path

from shardgen.planning.sources import Listing, SourceT, printable, shown
from srshards.errors import UsageError

_BLANKS = " \t"
_MAX_LINE_BYTES = 1 << 16  # the longest path of Linux, 4,096 bytes, takes 24,576 as a JSON string
_EXPECTED = "pass a text file with one photo path per line as --exclude"


@dataclass(frozen=True)
class Exclusion:
    """The result of applying an exclude file: the number of photos left out, and listed paths without a photo."""

    file: Path
    num_photos: int
    unknown: tuple[str, ...] = ()


def exclude_line(path: str) -> str:
    """Return the line for a photo, without a line end: its path, as a JSON string where plain text is ambiguous."""
    plain = path.isprintable() and path == path.strip() and not path.startswith(("#", '"', "./", "\ufeff"))
    return path if plain else json.dumps(path)


def read_exclude_file(file: Path) -> list[str]:
    """Return the paths listed in the file, in order and without duplicates.

    Windows line ends, a byte order mark, spaces and tabs around a line and a leading `./` are ignored. UsageError, with
    the line's number, when the file cannot be read or parsed.
    """
    paths: dict[str, None] = {}
    try:
        with open(file, "rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_MAX_LINE_BYTES + 1), b""), start=1):
                start = codecs.BOM_UTF8 if number == 1 else b""
                if path := _path_of(line.removeprefix(start), f"{file}, line {number}"):
                    paths[path] = None
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}; {_EXPECTED}") from error
    return list(paths)


def _path_of(line: bytes, where: str) -> str | None:
    if len(line) > _MAX_LINE_BYTES:
        raise UsageError(f"{where} is too long for a path; {_EXPECTED}")
    try:
        text = line.decode().removesuffix("\n").removesuffix("\r").strip(_BLANKS)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{where} is not UTF-8 ({error.reason}); save the file as UTF-8, and write a file name that is not UTF-8 "
            'as a JSON string, e.g. "sky/\\udce9t\\udce9.jpg"'
        ) from error
    if text.startswith("#"):
        return None
    if text.startswith('"'):
        try:
            path = json.loads(text)
        except ValueError as error:
            raise UsageError(
                f"{where} begins with a quotation mark but is not a JSON string ({error}); "
                r'expected e.g. "sky/\"best\" of 2024.jpg"'
            ) from error
    else:
        path = text
    return str(path).removeprefix("./")


def leave_out(listing: Listing[SourceT], file: Path, option: str = "--input") -> tuple[Listing[SourceT], Exclusion]:
    """Return the listing without the photos listed in the file. `option` is that of the listed folder, for messages.

    UsageError when none of the listed paths is a photo of the input, or when no photo would remain.
    """
    listed = read_exclude_file(file)
    wanted = set(listed)
    found = {photo.path for photo in listing.photos if photo.path in wanted}
    if listed and not found:
        example = min(photo.path for photo in listing.photos)
        raise UsageError(
            f"{file} lists no photo of the input: expected paths relative to {option} such as {printable(example)}, "
            f"found e.g. {shown(listed[0])}"
        )
    remaining = [photo for photo in listing.photos if photo.path not in found]
    if not remaining:
        raise UsageError(f"{file} lists every photo of the input; list fewer")
    unknown = tuple(path for path in listed if path not in found)
    return replace(listing, photos=remaining), Exclusion(file, len(found), unknown)
