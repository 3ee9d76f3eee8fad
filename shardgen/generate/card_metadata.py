"""The YAML header of a dataset card: how Hugging Face `datasets` reads a folder of shards."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from srshards.format import SPLITS, Manifest, image_codec, image_extension, scale_folder

DIGEST_LABEL = "SHA-256 of manifest.json: "

_SPLIT_NAMES = {"train": "train", "val": "validation"}  # as `datasets` names them
_TAGS = ["super-resolution", "image-restoration", "webdataset", "sr-shards"]
_LARGEST_SIZE = "n>1T"
_NO_LICENSE = "unknown  # replace by the license of the photos"


class CardScale(NamedTuple):
    """A finished scale's folder: its manifest, and the `json` member of its first sample as stored."""

    manifest: Manifest
    sample: Mapping[str, Any]

    @property
    def name(self) -> str:
        return scale_folder(self.manifest.scale)

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """The manifest's entries of the splits that have samples, by the name of the split in the manifest."""
        return {split: found for split in SPLITS if (found := self.manifest.raw["splits"][split])["samples"]}

    @property
    def num_samples(self) -> int:
        return sum(split["samples"] for split in self.splits.values())


def header(scales: Sequence[CardScale], license_line: str | None, is_root: bool) -> str:
    """Return the YAML between the lines `---`. `license_line` is what follows `license: `, None if never filled in."""
    metadata = {
        "pretty_name": title(scales),
        "task_categories": ["image-to-image"],
        "tags": _TAGS,
        "size_categories": [_size_category(max(scale.num_samples for scale in scales))],
        "configs": [_config(scale, f"{scale.name}/" if is_root else "") for scale in scales],
        "dataset_info": [_dataset_info(scale) for scale in scales],
    }
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000)
    return f"license: {license_line or _NO_LICENSE}\n{text}"


def title(scales: Iterable[CardScale]) -> str:
    return f"Super-resolution shards, {', '.join(f'{scale.manifest.scale}x' for scale in scales)}"


def split_name(split: str) -> str:
    """Return the name of a split in `datasets`."""
    return _SPLIT_NAMES[split]


def _config(scale: CardScale, prefix: str) -> dict[str, Any]:
    return {
        "config_name": scale.name,
        # `datasets` finds the cached copy of a local folder by the folder's name and this text, not by its files.
        "description": f"{scale.num_samples} samples; {DIGEST_LABEL}{scale.manifest.sha256}",
        "data_files": [{"split": split_name(split), "path": f"{prefix}{split}-*.tar"} for split in scale.splits],
    }


def _dataset_info(scale: CardScale) -> dict[str, Any]:
    """Return columns and sizes. `datasets` compares `num_examples` with the samples found: none can be missing."""
    return {
        "config_name": scale.name,
        "features": _features(scale),
        "splits": [
            {"name": split_name(split), "num_bytes": found["bytes"], "num_examples": found["samples"]}
            for split, found in scale.splits.items()
        ],
    }


def _features(scale: CardScale) -> list[dict[str, Any]]:
    """Return the columns of the split with the most images; where a sample has fewer, `datasets` fills in None."""
    manifest = scale.manifest
    images = max((manifest.images(split) for split in scale.splits), key=len)
    columns = [{"name": image_extension(name, manifest.codec), **_image(manifest, name)} for name in images]
    described = {"name": "json", **_feature(scale.sample)}
    return [*columns, described, {"name": "__key__", "dtype": "string"}, {"name": "__url__", "dtype": "string"}]


def _image(manifest: Manifest, name: str) -> dict[str, Any]:
    """Return the type of an image column. Without the type of arrays, `datasets` stores `npy` as lists of numbers."""
    codec = image_codec(name, manifest.codec)
    if codec == "tlc":  # which `datasets` cannot decode
        return {"dtype": "binary"}
    if codec != "npy":
        return {"dtype": "image"}
    edge = manifest.hr_size if name in ("hr", "up") else manifest.hr_size // manifest.scale
    return {"dtype": {"array3_d": {"shape": [edge, edge, 3], "dtype": "uint8"}}}


def _feature(value: Any) -> dict[str, Any]:
    """Return the type of a JSON value, as all samples of a folder have it."""
    if isinstance(value, Mapping):
        return {"struct": [{"name": name, **_feature(inner)} for name, inner in value.items()]}
    if isinstance(value, list):
        inner = _feature(value[0])
        return {"list": inner["dtype"] if list(inner) == ["dtype"] else inner}
    return {"dtype": {str: "string", bool: "bool", int: "int64", float: "float64"}[type(value)]}


def _size_category(num_samples: int) -> str:
    """Return the Hub's name for a size: `n<1K`, `1K<n<10K`, ..."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    for power, bound in enumerate(bounds, 3):
        if num_samples < 10**power:
            return f"n<{bound}" if power == 3 else f"{bounds[power - 4]}<n<{bound}"
    return _LARGEST_SIZE
