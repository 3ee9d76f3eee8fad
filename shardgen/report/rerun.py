"""The commands that make the shards again without the excluded photos, from the settings in their manifests."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from shardgen.planning.config import DEFAULT_VAL_FRACTION, Config, settings_of
from srshards.format import Address, Manifest
from srshards.terminal.text import plural

_DEFAULTS = {field.name: field.default for field in fields(Config)} | {"val_fraction": DEFAULT_VAL_FRACTION}
_VALUES = ("method", "variants", "sample", "codec", "icc", "shard_bytes", "val_fraction", "seed")  # of both commands
_OF_SCALE = ("scale", "hr_size")


@dataclass(frozen=True)
class Rerun:
    """Commands, one for each group of scales with equal settings, and a sentence on what to replace in them."""

    commands: Sequence[str]
    advice: str


def rerun(manifests: Sequence[Manifest], num_excluded: int) -> Rerun:
    """Return the commands for the scales of a folder. Placeholders stand for the photos: manifests lack their paths.

    `num_excluded` is the number of photos that `--exclude` left out of the last run.
    """
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for manifest in manifests:
        settings = settings_of(manifest.raw)
        same = {name: value for name, value in settings.items() if name not in _OF_SCALE}
        if settings["pairs"]:
            same["tile_step"] = None if settings["tile_step"] == settings["hr_size"] else settings["tile_step"]
        groups.setdefault(repr(same), []).append((manifest.scale, {**settings, **same}))
    names: dict[str, str] = {}
    output = manifests[0].folder.parent
    commands = [_command(output, [scale for scale, _ in group], group[0][1], names) for group in groups.values()]
    replace = ", ".join(f"{name} by {what}" for name, what in names.items())
    unknown, is_packed = "", any(group[0][1]["pairs"] for group in groups.values())
    if is_packed:
        unknown = " The shards do not record --pattern, --meta-info and --skip-unpaired: add those that you passed."
    excluded = ""
    if num_excluded:
        count = plural(num_excluded, "pair" if is_packed else "photo")
        excluded = f" The last run left out {count} by --exclude: add its list to exclude.txt to keep them out."
    return Rerun(commands, f"Replace {replace}.{unknown}{excluded}")


def _command(output: Address, scales: Sequence[int], settings: Mapping[str, Any], names: dict[str, str]) -> str:
    """Return a command; add its placeholders, and what to replace them by, to `names`."""
    words: list[object] = ["python", "-m", "shardgen"]
    given = settings["pairs"]
    if given:
        words += ["pack", "--hr", _placeholder(names, "HR", "your folder of HR images")]
        words += _folders("--lr", "LR", "of LR images", scales, names)
        if given["up"] == "given":
            words += _folders("--up", "UP", "of upsampled images", scales, names)
        words += ["-o", output, "--size", settings["size"]]
    else:
        words += ["generate", "-i", _placeholder(names, "PHOTOS", "your folder"), "-o", output, "-s", *scales]
        words += _differing(settings, ("size", "fit"))
    if settings["tile_step"] not in (None, settings["size"]):
        words += ["--tile-step", settings["tile_step"]]
    if settings["val_fraction"] is None:
        words += ["--val", _placeholder(names, "VAL", "your validation folder")]
        if given:
            words += _folders("--val-lr", "VAL_LR", "of validation LR images", scales, names)
            if given["up"] == "given":
                words += _folders("--val-up", "VAL_UP", "of upsampled validation images", scales, names)
    if recipe := settings.get("degradation"):
        words += ["--degradation", _recipe(recipe, names)]
    words += _differing(settings, _VALUES)
    words += ["--no-up"] * (not settings["up"]) + ["--sharpen-hr"] * bool(settings["sharpen_hr"])
    words += ["--accept-misaligned"] * bool(given and given["accept_misaligned"])
    return shlex.join(map(str, [*words, "--exclude", "exclude.txt"]))


def _differing(settings: Mapping[str, Any], names: Sequence[str]) -> list[object]:
    """Return the options of the settings that differ from the defaults."""
    words: list[object] = []
    for name in names:
        if settings.get(name) not in (None, _DEFAULTS[name]):
            words += ["--" + name.replace("_", "-"), settings[name]]
    return words


def _placeholder(names: dict[str, str], name: str, what: str) -> str:
    names[name] = what
    return name


def _folders(option: str, name: str, what: str, scales: Sequence[int], names: dict[str, str]) -> list[object]:
    words: list[object] = []
    for scale in scales:
        words += [option, _placeholder(names, f"{name}_X{scale}", f"your folder {what} at {scale}x")]
    return words


def _recipe(recipe: Mapping[str, Any], names: dict[str, str]) -> str:
    name = str(recipe["name"])
    if name in BUILT_IN and json.dumps(load_recipe(name).plain["steps"]) == json.dumps(recipe["steps"]):
        return name
    return _placeholder(names, f"{name}.yaml", "your recipe")
