"""What all pictures for people share: colours, letters, and a file that is there only when it is whole."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from srshards.errors import RunError
from srshards.imaging.provenance import exif_mark
from srshards.storage.files import temporary_path

GAP_PX = 8
BACKGROUND, TEXT, FAINT = (24, 26, 30), (236, 238, 242), (160, 166, 176)

# Pillow's own font has no Chinese. Names of fonts that do, as Linux, macOS and Windows call their files.
_CJK_FONTS = ("NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc", "PingFang.ttc", "msyh.ttc")


def write_text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int], size: int = 14
) -> None:
    """A line of text with its top left corner at (x, y), `size` px high."""
    draw.text(at, text.encode("utf-8", "replace").decode(), colour, font=_font(text, size))


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not text.isascii():
        for name in _CJK_FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def save_png(picture: Image.Image, output: Path, program: str) -> None:
    """Write the file, which names the program. RunError when it cannot be written; then nothing is left of it."""
    temporary = temporary_path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        picture.save(temporary, "PNG", exif=exif_mark(program))
        temporary.replace(output)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {output}: {error.strerror}") from error
