"""A scale's manifest in the form that the report needs."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from shardgen.degradation.describe import summary
from shardgen.generate.manifest import malformed_as_format_error
from shardgen.pairs.summary import describe_settings
from srshards.format import SPLITS, Manifest


@dataclass(frozen=True)
class Contents:
    """Statistics of a scale. `noun` is what samples are made from: photos or pairs. `failures` and
    `skipped` are (path, reason); `classes` is {class: {split: samples}}.
    """

    noun: str
    settings: dict[str, Any]
    degradation: str | None
    photos: int
    samples: int
    shards: int
    bytes: int
    enlarged: int
    of_split: dict[str, int]
    classes: dict[str, dict[str, int]]
    psnr_mean: float | None
    psnr_min: float | None
    psnr_max: float | None
    identical: int
    failures: list[tuple[str, str]]
    skipped: list[tuple[str, str]]
    converted: int  # photos with a colour profile that were converted to sRGB
    unusable_profiles: int  # photos whose colour profile could not be applied

    def reasons(self) -> list[tuple[str, int]]:
        return Counter(reason for _, reason in self.failures + self.skipped).most_common()


def contents_of(manifest: Manifest) -> Contents:
    """Return a manifest's content. FormatError when it is incomplete or malformed."""
    with malformed_as_format_error(manifest.folder):
        return _contents(manifest.raw)


def _contents(raw: dict[str, Any]) -> Contents:
    totals, splits, settings = raw["totals"], raw["splits"], dict(raw["settings"])
    profiles = raw.get("profiles", {"converted": {}, "unusable": []})  # since format version 3
    recipe = settings.pop("degradation", None)
    psnrs = [(splits[split]["samples"], splits[split]["psnr_up_db"]) for split in SPLITS]
    finite = [(samples - psnr["identical"], psnr) for samples, psnr in psnrs if psnr["mean"] is not None]
    count = sum(samples for samples, _ in finite)
    classes: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        for name, samples in splits[split]["samples_per_class"].items():
            classes.setdefault(name, dict.fromkeys(SPLITS, 0))[split] = int(samples)
    if pairs := settings.get("pairs"):
        settings["pairs"] = describe_settings(pairs)
    return Contents(
        noun="pair" if pairs else "photo",
        settings=settings,
        degradation=f"{recipe['name']}: {summary(recipe['steps'])}" if recipe else None,
        photos=int(totals["photos"]),
        samples=int(totals["samples"]),
        shards=int(totals["shards"]),
        bytes=int(totals["bytes"]),
        enlarged=int(totals["enlarged"]),
        of_split={split: int(splits[split]["samples"]) for split in SPLITS},
        classes=classes,
        psnr_mean=sum(samples * float(psnr["mean"]) for samples, psnr in finite) / count if count else None,
        psnr_min=min((float(psnr["min"]) for _, psnr in finite), default=None),
        psnr_max=max((float(psnr["max"]) for _, psnr in finite), default=None),
        identical=sum(int(psnr["identical"]) for _, psnr in psnrs),
        failures=[(str(one["path"]), str(one["reason"])) for one in raw["failures"]],
        skipped=[(str(one["path"]), str(one["reason"])) for one in raw["skipped"]],
        converted=sum(map(int, profiles["converted"].values())),
        unusable_profiles=len(profiles["unusable"]),
    )
