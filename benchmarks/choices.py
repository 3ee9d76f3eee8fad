"""Effect of `--method` and `--codec`: PSNR of the upsampled LR against HR, and bytes per sample.

No times are measured, so other load on the machine has no influence: all figures are from the generated manifests.

  methods   each plain method at 4x: PSNR in dB of `up` against HR over all samples: mean, minimum, maximum. A high
            value means that upsampling reverses the method easily, not that the method is better to train on
  codecs    each codec at 2x, 3x and 4x, with and without `up`: bytes of all shards divided by the number of samples,
            including tar headers and JSON. 1 MB is 1,000,000 bytes, so MB per sample equal GB per 1,000 photos

    python -m benchmarks.choices --photos DIR
"""

import json
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from benchmarks.common import PhotoSet, RunFailedError, python_module, say, scratch_folder, timed_command
from benchmarks.options import benchmark, output_option, photos_option, scratch_option
from benchmarks.report import print_table, write_result
from shardgen.planning.config import METHODS
from srshards.format import CODECS

_METHOD_SCALE = 4
_SCALES = (2, 3, 4)
_UP = {"with up": (), "without up": ("--no-up",)}


class ManifestGenerator:
    """Generates shards of the photos, reads their manifests, and deletes the shards."""

    def __init__(self, photos: PhotoSet, scratch: Path, size: int, sample: float) -> None:
        self._source = ["-i", photos.root, "--size", size, "--sample", sample, "--auto"]
        self._output = scratch / "shards"

    def manifests(self, scales: tuple[int, ...], *options: str) -> dict[int, dict[str, Any]]:
        """Return the manifest of each scale. RunFailedError when the generator fails."""
        arguments = ["generate", "-o", self._output, *self._source, "--scales", *scales, *options]
        try:
            timed_command(python_module("shardgen", *arguments))
            return {scale: self._manifest(scale) for scale in scales}
        finally:
            rmtree(self._output, ignore_errors=True)

    def _manifest(self, scale: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self._output / f"scale_{scale}x" / "manifest.json").read_bytes())
        return content


def psnr_up_db(manifest: dict[str, Any]) -> dict[str, float]:
    """Return mean, minimum and maximum PSNR in dB of `up` over both splits, without samples whose `up` equals HR."""
    splits = [split for split in manifest["splits"].values() if split["psnr_up_db"]["mean"] is not None]
    if not splits:
        raise RunFailedError("no sample has a finite PSNR: every photo has a single colour")
    counts = [split["samples"] - split["psnr_up_db"]["identical"] for split in splits]
    total = sum(count * split["psnr_up_db"]["mean"] for count, split in zip(counts, splits, strict=True))
    return {
        "mean": round(total / sum(counts), 2),
        "min": round(min(split["psnr_up_db"]["min"] for split in splits), 2),
        "max": round(max(split["psnr_up_db"]["max"] for split in splits), 2),
    }


def bytes_per_sample(manifest: dict[str, Any]) -> int:
    total: int = manifest["totals"]["bytes"]
    count: int = manifest["totals"]["samples"]
    return round(total / count)


def measure_methods(maker: ManifestGenerator) -> dict[str, Any]:
    """Return `psnr_up_db` by method."""
    found = {}
    for method in METHODS:
        say(f"method {method}")
        (manifest,) = maker.manifests((_METHOD_SCALE,), "--method", method, "--no-up").values()
        found[method] = psnr_up_db(manifest)
    return found


def measure_codecs(maker: ManifestGenerator) -> dict[str, Any]:
    """Return bytes per sample by codec, `with up` or `without up`, and scale."""
    found: dict[str, Any] = {}
    for codec in CODECS:
        for name, options in _UP.items():
            say(f"codec {codec}, {name}")
            manifests = maker.manifests(_SCALES, "--codec", codec, *options)
            sizes = {f"{scale}x": bytes_per_sample(manifest) for scale, manifest in manifests.items()}
            found.setdefault(codec, {})[name] = sizes
    return found


def show(methods: dict[str, Any], codecs: dict[str, Any]) -> None:
    """Print both as tables."""
    rows = [[name, *(f"{psnr[key]:.2f}" for key in ("mean", "min", "max"))] for name, psnr in methods.items()]
    print_table(f"PSNR of up at {_METHOD_SCALE}x, dB", ["method", "mean", "min", "max"], rows)
    scales = [f"{scale}x" for scale in _SCALES]
    sizes = [
        [f"{codec}, {name}", *(f"{by_scale[scale] / 1e6:.2f}" for scale in scales)]
        for codec, cases in codecs.items()
        for name, by_scale in cases.items()
    ]
    print_table("MB per sample", ["codec", *scales], sizes)


@benchmark
@photos_option
@click.option("--size", type=click.IntRange(min=16), default=512, help="HR edge in px.")
@click.option("--sample", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the photos.")
@scratch_option("Folder for temporary files, about 7 MB per photo.")
@output_option("choices.json")
def main(photos: Path | None, size: int, sample: float, scratch: Path | None, output: Path) -> None:
    """Measure the effect of --method and --codec: PSNR of the upsampled LR, bytes per sample.

    \b
    Example:
      python -m benchmarks.choices --photos photos
    """
    photo_set = PhotoSet.of(photos)
    with scratch_folder(scratch) as folder:
        maker = ManifestGenerator(photo_set, folder, size, sample)
        methods, codecs = measure_methods(maker), measure_codecs(maker)
        content = {
            "photos": photo_set.describe(),
            "settings": {"size": size, "sample": sample, "method_scale": _METHOD_SCALE},
            "methods": methods,
            "codecs": codecs,
        }
        write_result(output, "python -m benchmarks.choices --photos DIR", folder, content)
    show(methods, codecs)


if __name__ == "__main__":
    main()
