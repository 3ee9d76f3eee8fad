"""Recognise the program that wrote a file, so that a command overwrites only its own output.

Every output contains the name of the program that wrote it: a page in its head, an image in its Exif (Software), an
ONNX file in its `doc_string`. A command refuses to overwrite any other file, such as its input, files of a run or a
shard folder, photos or notes, even through a link or another spelling of the path.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from srshards.imaging.pillow_limit import without_size_limit
from srshards.process.shortages import shortage

_HEAD_BYTES = 1024
_EXIF_SOFTWARE = 0x0131
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
_ONNX_DOC_STRING = 0x32  # the tag of ModelProto.doc_string, which precedes the graph

# Both commands write to `report.html` by default, so each may overwrite the other's page.
PAGE_WRITERS = "shardgen or trainer report"
COMPARE_PAGE_WRITER = "trainer evaluate"


def page_mark(writer: str) -> str:
    """Return the HTML for the head of pages that the command writes."""
    return f'<meta name="generator" content="{writer}">'


def exif_mark(program: str) -> Image.Exif:
    """Return the Exif for images that the program writes."""
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = program
    return exif


def overwrite_refusal(path: Path, program: str, option: str = "--output") -> str | None:
    """Return why the program must not write there; None if the file does not exist or is the program's own.

    `option` is the one that names the file.
    """
    if not path.exists() or _written_by(path, program):
        return None
    return f"{path} already exists, and {program} did not write it; pass another {option}, or remove it first"


def _written_by(path: Path, program: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
        if page_mark(program).encode() in head:
            return True
        if bytes([_ONNX_DOC_STRING, len(program)]) + program.encode() in head:
            return True
        return bool(_software(path) == program)
    except Exception as error:  # unreadable, or a damaged image, for which Pillow raises many kinds of exceptions
        if shortage(error):
            raise
        return False


@without_size_limit()  # no pixels are decoded here
def _software(path: Path) -> Any:
    with Image.open(path, formats=_IMAGE_FORMATS) as image:
        return image.getexif().get(_EXIF_SOFTWARE)
