"""The folder layouts of `unpack`: where the images of a sample go, below the folder of a scale.

`old` has the names of the older two-script workflow. `pairs` and `basicsr` have a folder for each kind of image with
equal file names in all of them; validation samples are in a folder of their own, because programs that read folders
train on everything they find. BasicSR reads flat folders only, and separates names from shapes by a blank.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

LAYOUTS = ("old", "pairs", "basicsr")
META_INFO_NAME = "meta_info.txt"

_UNREADABLE_BY_BASICSR = re.compile(r"[\s\ud800-\udfff]")  # blanks, and bytes that are not UTF-8


def written_images(images: Iterable[str], layout: str) -> list[str]:
    """Return the images that the layout includes. Only `old` has `up`: trainers that read pairs do not use it."""
    return [image for image in images if layout == "old" or image != "up"]


def stem_path(path: PurePosixPath, layout: str) -> PurePosixPath:
    """Return the path of a sample without its image: that of the photo without extension; flat for BasicSR."""
    return PurePosixPath(_UNREADABLE_BY_BASICSR.sub("_", "_".join(path.parts))) if layout == "basicsr" else path


def ending(image: str, scale: int, layout: str) -> str:
    """Return what follows the stem in the name of an image's file."""
    if layout != "old":
        return ".png"
    return "_hr.png" if image == "hr" else f"_{'upsampled' if image == 'up' else image}_{scale}x.png"


def image_path(stem: PurePosixPath, image: str, split: str, scale: int, layout: str) -> PurePosixPath:
    """Return the path of an image's file."""
    path = stem.with_name(stem.name + ending(image, scale, layout))
    return path if layout == "old" else split_folder(split) / image.upper() / path


def split_folder(split: str) -> PurePosixPath:
    """Return the folder of a split's images in the layouts of pairs."""
    return PurePosixPath("" if split == "train" else split)


def meta_info(stems: Sequence[PurePosixPath], hr_size: int) -> bytes:
    """Return BasicSR's list of a folder of HR images: name and (height,width,channels), one a line."""
    return "".join(f"{stem}.png ({hr_size},{hr_size},3)\n" for stem in sorted(stems)).encode()
