"""Shards of a small set of photos have the hashes recorded in `reference_set.json`.

`python tests/test_reference_set.py` records them again; needed only after a documented change of the output.
"""

import json
import sys
import tempfile
from pathlib import Path

import cv2
import pytest
from helpers import contract_files, generate, make_photos

from srshards import __version__

RECORDED_VERSION = "0.1.0"
RECORDED = Path(__file__).with_name("reference_set.json")
SETS: dict[str, tuple[object, ...]] = {
    "npy": ("--shard-bytes", "100KB"),
    "png": ("--codec", "png", "--method", "area", "--shard-bytes", "100KB"),
    "webp": ("--codec", "webp", "--method", "lanczos", "--shard-bytes", "100KB"),
    "recipe with variants": ("--degradation", "realesrgan", "--variants", 2, "--shard-bytes", "100KB"),
    "tiles": ("--fit", "tile", "--tile-step", 32, "--shard-bytes", "200KB"),
}


def generated(name: str, folder: Path) -> dict[str, str]:
    photos = make_photos(folder / "photos", 10)
    generate(photos, folder / "shards", "-s", 2, "-s", 3, "-s", 4, "--size", 60, "--val-fraction", 0.2, *SETS[name])
    for manifest in (folder / "shards").glob("*/manifest.json"):  # names the version of the package
        text = manifest.read_text()
        manifest.write_text(text.replace(f'"version": "{__version__}"', f'"version": "{RECORDED_VERSION}"'))
    found = contract_files(folder / "shards")
    return {name: digest for name, digest in found.items() if not name.endswith("README.md")}


# Without fused multiply-add, OpenCV's float filters round differently, which changes a few pixels of recipes.
FUSED = pytest.mark.skipif("AVX2" not in cv2.getCPUFeaturesLine(), reason="recorded on a processor with AVX2")


@pytest.mark.parametrize("name", [pytest.param(name, marks=FUSED) if "recipe" in name else name for name in SETS])
def test_shards_have_the_recorded_hashes(name: str, tmp_path: Path) -> None:
    assert generated(name, tmp_path) == json.loads(RECORDED.read_text())[name]


if __name__ == "__main__":
    found = {}
    for name in SETS:
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = generated(name, Path(scratch))
    (Path(sys.argv[1]) if sys.argv[1:] else RECORDED).write_text(json.dumps(found, indent=1) + "\n")
