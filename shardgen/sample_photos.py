"""The colour photographs that scikit-image carries, as class folders: something to try everything on.

python -m shardgen.sample_photos FOLDER
"""

import importlib.util
import shutil
import sys
from pathlib import Path

from shardgen.errors import UsageError

PHOTOS = {
    "animal": ("chelsea.png",),
    "food": ("coffee.png",),
    "machine": ("motorcycle_left.png", "motorcycle_right.png", "rocket.jpg"),
    "medicine": ("ihc.png", "retina.jpg"),
    "person": ("astronaut.png",),
    "space": ("hubble_deep_field.jpg",),
}


def copy_sample_photos(folder: Path) -> int:
    """Copy the photos that are not there yet to `folder/CLASS/NAME`. Returns how many there are."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise UsageError("the sample photos come with scikit-image: pip install scikit-image, or name your own --input")
    source = Path(package.origin).parent / "data"
    for class_name, names in PHOTOS.items():
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (folder / class_name / name).exists():
                shutil.copyfile(source / name, folder / class_name / name)
    return sum(len(names) for names in PHOTOS.values())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m shardgen.sample_photos FOLDER")
    print(f"{copy_sample_photos(Path(sys.argv[1]))} photographs of scikit-image in {sys.argv[1]}")
