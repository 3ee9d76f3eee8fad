"""The file that a command writes, and what may stand in its place: only what the same command wrote before.

Every such file says which program made it, where its kind has a place for that: a page in its head, an image in its
Exif (Software), an ONNX file in its `doc_string`. So no command replaces its own input, a file of a run or of a folder
of shards, a photo or anybody's notes, whatever link or spelling leads there.
"""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem
from PIL import Image

from shardgen.format import Address
from shardgen.process import shortage
from shardgen.store import AddressError, parse_address
from shardgen.terminal import complete_file

_HEAD_BYTES = 1024
_EXIF_SOFTWARE = 0x0131
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
_ONNX_DOC_STRING = 0x32  # the tag of ModelProto.doc_string, which stands before the graph

# Both commands write to `report.html` unless they are told otherwise, so each may replace the other's page.
PAGE_WRITERS = "shardgen or trainer report"
PAGE_MARK = f'<meta name="generator" content="{PAGE_WRITERS}">'


def exif_mark(program: str) -> Image.Exif:
    """For an image."""
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = program
    return exif


class FileToWrite(click.ParamType[Path]):
    """A file of this machine that a command may write: not a folder, and nothing there but what it wrote itself.

    Said before the work, not after it. `program` is the command, `example` the usual name of its file.
    """

    name = "path"

    def __init__(self, program: str, example: str) -> None:
        self._program, self._example = program, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            path: Address = parse_address(value) if isinstance(value, str) else value
        except AddressError as error:
            self.fail(str(error), param, ctx)
        if not isinstance(path, Path):
            self.fail(f"{path} lies in a store; expected a path of this machine", param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder: name the file to write, e.g. {path / self._example}", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{path} is no ordinary file: name the file to write, e.g. {self._example}", param, ctx)
        if refusal := why_not(path, self._program):
            self.fail(refusal, param, ctx)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return complete_file(incomplete)


def why_not(path: Path, program: str) -> str | None:
    """Why the program must not write there; None when nothing is there, or what it wrote itself."""
    if not path.exists() or _made_by(path, program):
        return None
    return f"{path} is there already, and {program} did not write it: name another --output, or remove it first"


def _made_by(path: Path, program: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        if program == PAGE_WRITERS:
            return PAGE_MARK.encode() in head
        if bytes([_ONNX_DOC_STRING, len(program)]) + program.encode() in head:
            return True
        return bool(_software(path) == program)
    except Exception as error:  # it cannot be read, or is a damaged image, of which Pillow raises all sorts of things
        if shortage(error):
            raise
        return False


def _software(path: Path) -> Any:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # no pixel is decoded here
    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            return image.getexif().get(_EXIF_SOFTWARE)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
