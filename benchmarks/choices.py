"""What `--method` and `--codec` change: how far the enlarged LR is from HR, and how much room a sample takes.

Nothing here depends on what else the machine does: there is no clock, and every figure comes from the manifests that
the generator writes.

  methods   each plain method at 4x: PSNR in dB of the enlarged LR (`up`) against HR, mean over all samples, with the
            lowest and the highest. A high one says that a method is easily undone by enlarging, not that it is the
            better one to train on
  codecs    each codec at 2x, 3x and 4x, with `up` and without: bytes of all shards over the number of samples, with
            what tar and JSON take. 1 MB is 1,000,000 bytes, so MB per sample are GB per 1,000 photos

    python -m benchmarks.choices --photos DIR
"""

import json
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from benchmarks.common import PhotoSet, RunFailedError, python_module, say, scratch_folder, timed_command
from benchmarks.options import output_option, photos_option, scratch_option
from benchmarks.report import print_table, write_result
from shardgen.planning.config import METHODS
from srshards.format import CODECS
from srshards.terminal.help import Command

_METHOD_SCALE = 4
_SCALES = (2, 3, 4)
_UP = {"with up": (), "without up": ("--no-up",)}


class Maker:
    """Makes shards of the photos and looks at their manifests; nothing of them stays."""

    def __init__(self, photos: PhotoSet, scratch: Path, size: int, sample: float) -> None:
        self._source = ["-i", photos.root, "--size", size, "--sample", sample, "--auto"]
        self._output = scratch / "shards"

    def manifests(self, scales: tuple[int, ...], *options: str) -> dict[int, dict[str, Any]]:
        """The manifest of each scale. RunFailedError when the generator fails."""
        words = ["generate", "-o", self._output, *self._source, "--scales", *scales, *options]
        try:
            timed_command(python_module("shardgen", *words))
            return {scale: self._manifest(scale) for scale in scales}
        finally:
            rmtree(self._output, ignore_errors=True)

    def _manifest(self, scale: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self._output / f"scale_{scale}x" / "manifest.json").read_bytes())
        return content


def psnr_up_db(manifest: dict[str, Any]) -> dict[str, float]:
    """Mean, lowest and highest PSNR in dB of `up` over both splits; samples whose `up` equals HR have none."""
    splits = [split for split in manifest["splits"].values() if split["psnr_up_db"]["mean"] is not None]
    if not splits:
        raise RunFailedError("no sample has a finite PSNR: are the photos all of one colour?")
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


def measure_methods(maker: Maker) -> dict[str, Any]:
    """By method: `psnr_up_db`."""
    found = {}
    for method in METHODS:
        say(f"method {method}")
        (manifest,) = maker.manifests((_METHOD_SCALE,), "--method", method, "--no-up").values()
        found[method] = psnr_up_db(manifest)
    return found


def measure_codecs(maker: Maker) -> dict[str, Any]:
    """By codec, then `with up` or `without up`, then scale: bytes per sample."""
    found: dict[str, Any] = {}
    for codec in CODECS:
        for name, options in _UP.items():
            say(f"codec {codec}, {name}")
            manifests = maker.manifests(_SCALES, "--codec", codec, *options)
            sizes = {f"{scale}x": bytes_per_sample(manifest) for scale, manifest in manifests.items()}
            found.setdefault(codec, {})[name] = sizes
    return found


def show(methods: dict[str, Any], codecs: dict[str, Any]) -> None:
    """Both as tables."""
    rows = [[name, *(f"{psnr[key]:.2f}" for key in ("mean", "min", "max"))] for name, psnr in methods.items()]
    print_table(f"PSNR of up at {_METHOD_SCALE}x, dB", ["method", "mean", "min", "max"], rows)
    scales = [f"{scale}x" for scale in _SCALES]
    sizes = [
        [f"{codec}, {name}", *(f"{by_scale[scale] / 1e6:.2f}" for scale in scales)]
        for codec, ways in codecs.items()
        for name, by_scale in ways.items()
    ]
    print_table("MB per sample", ["codec", *scales], sizes)


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@photos_option
@click.option("--size", type=click.IntRange(min=16), default=512, help="HR edge in px.")
@click.option("--sample", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the photos.")
@scratch_option("Where to write, about 7 MB per photo.")
@output_option("choices.json")
def main(photos: Path | None, size: int, sample: float, scratch: Path | None, output: Path) -> None:
    """Measure what --method and --codec change: PSNR of the enlarged LR, bytes per sample.

    \b
    Example:
      python -m benchmarks.choices --photos photos
    """
    photo_set = PhotoSet.of(photos)
    try:
        with scratch_folder(scratch) as folder:
            maker = Maker(photo_set, folder, size, sample)
            methods, codecs = measure_methods(maker), measure_codecs(maker)
            content = {
                "photos": photo_set.describe(),
                "settings": {"size": size, "sample": sample, "method_scale": _METHOD_SCALE},
                "methods": methods,
                "codecs": codecs,
            }
            write_result(output, "python -m benchmarks.choices --photos DIR", folder, content)
    except RunFailedError as error:
        raise click.ClickException(str(error)) from error
    show(methods, codecs)


if __name__ == "__main__":
    main()
