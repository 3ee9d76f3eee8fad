"""Which program wrote a file, so that a command replaces only what it wrote before.

Every such file says which program made it, where its kind has a place for that: a page in its head, an image in its
Exif (Software), an ONNX file in its `doc_string`. So no command replaces its own input, a file of a run or of a folder
of shards, a photo or anybody's notes, whatever link or spelling leads there.
"""

from pathlib import Path
from typing import Any

from PIL import Image

from srshards.imaging.pillow_limit import without_size_limit
from srshards.process.shortages import shortage

_HEAD_BYTES = 1024
_EXIF_SOFTWARE = 0x0131
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
_ONNX_DOC_STRING = 0x32  # the tag of ModelProto.doc_string, which stands before the graph

# Both commands write to `report.html` unless they are told otherwise, so each may replace the other's page.
PAGE_WRITERS = "shardgen or trainer report"
PAGE_MARK = f'<meta name="generator" content="{PAGE_WRITERS}">'


def exif_mark(program: str) -> Image.Exif:
    """The Exif of an image that the program writes."""
    exif = Image.Exif()
    exif[_EXIF_SOFTWARE] = program
    return exif


def overwrite_refusal(path: Path, program: str) -> str | None:
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


@without_size_limit()  # no pixel is decoded here
def _software(path: Path) -> Any:
    with Image.open(path, formats=_IMAGE_FORMATS) as image:
        return image.getexif().get(_EXIF_SOFTWARE)
