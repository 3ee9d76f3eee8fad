"""Sample photos to try the commands on: the colour photographs bundled with scikit-image, in class folders.

python -m shardgen.sample_photos FOLDER
"""

import importlib.util
import shutil
from pathlib import Path

import click

from srshards.errors import UsageError
from srshards.extras import install_command
from srshards.storage.store import AddressError, parse_path
from srshards.terminal.help import Command
from srshards.terminal.streams import guarded
from srshards.terminal.text import say

PHOTOS = {
    "animal": ("chelsea.png",),
    "food": ("coffee.png",),
    "machine": ("motorcycle_left.png", "motorcycle_right.png", "rocket.jpg"),
    "medicine": ("ihc.png", "retina.jpg"),
    "person": ("astronaut.png",),
    "space": ("hubble_deep_field.jpg",),
}


def copy_sample_photos(folder: Path) -> int:
    """Copy missing photos to `folder/CLASS/NAME` and return the number of photos in the set.

    UsageError when scikit-image is not installed.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise UsageError(
            f"the sample photos are part of scikit-image, which is not installed; {install_command('skimage')}, or "
            "pass your own photos as --input (make: INPUT=...)"
        )
    source = Path(package.origin).parent / "data"
    for class_name, names in PHOTOS.items():
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        for name in names:
            if not (folder / class_name / name).exists():
                shutil.copyfile(source / name, folder / class_name / name)
    return sum(len(names) for names in PHOTOS.values())


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path())
def main(folder: str) -> None:
    """Copy the colour photographs bundled with scikit-image to FOLDER/CLASS/NAME.

    \b
    Example:
      python -m shardgen.sample_photos build/sample_photos
    """
    try:
        say(f"{folder}: {copy_sample_photos(parse_path(folder))} photographs from scikit-image")
    except (UsageError, AddressError) as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    with guarded():
        main()
