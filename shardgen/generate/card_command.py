"""The command that generates a set of shards again, from the settings in its manifest."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from srshards.format import dump_json

_WIDTH = 90


def generating_command(scales: Sequence[int], settings: Mapping[str, Any]) -> str:
    """Return the command with these settings, which are equal for all of the scales but for what follows from them.

    All settings are written out, because defaults may differ between releases. Folders are placeholders: a manifest
    contains none.
    """
    pairs = settings["pairs"]
    inputs = _pair_inputs(scales, settings) if pairs else _photo_inputs(scales, settings)
    options = (*_image_options(settings), *_set_options(settings))
    return _wrapped([f"python -m shardgen {'pack' if pairs else 'generate'}", *inputs, *options, "--auto"])


def recipe_file(settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return name and YAML of the file that `generating_command` takes the recipe from; None without such a file."""
    recipe = settings["degradation"]
    if recipe is None or _is_built_in(recipe):
        return None
    text = yaml.safe_dump(recipe["steps"], sort_keys=False, allow_unicode=True, width=100)
    return f"{recipe['name']}.yaml", text


def _photo_inputs(scales: Sequence[int], settings: Mapping[str, Any]) -> Iterator[str]:
    yield "--input photos"
    if settings["val_fraction"] is None:
        yield "--val validation"
    yield "--output shards"
    yield f"--scales {' '.join(map(str, scales))}"


def _pair_inputs(scales: Sequence[int], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the folders of pairs; the scale of each LR folder follows from the sizes of its images."""
    splits = [("--hr HR", "--", "")]
    if settings["val_fraction"] is None:
        splits.append(("--val validation/HR", "--val-", "validation/"))
    for hr, prefix, folder in splits:
        yield hr
        yield from (f"{prefix}lr {folder}LR_{scale}x" for scale in scales)
        if settings["pairs"]["up"] == "given":
            yield from (f"{prefix}up {folder}UP_{scale}x" for scale in scales)
    yield "--output shards"


def _image_options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that determine the images of a sample."""
    yield f"--size {settings['size']}"
    if not settings["pairs"]:
        yield f"--fit {settings['fit']}"
    if settings["tile_step"] is not None:
        yield f"--tile-step {settings['tile_step']}"
    yield f"--method {settings['method']}"
    if recipe := settings["degradation"]:
        file = recipe_file(settings)
        yield f"--degradation {shlex.quote(file[0]) if file else recipe['name']}"
        yield f"--variants {settings['variants']}"
    if not settings["up"]:
        yield "--no-up"
    if settings["sharpen_hr"]:
        yield "--sharpen-hr"
    if settings["pairs"] and settings["pairs"]["accept_misaligned"]:
        yield "--accept-misaligned"
    yield f"--icc {settings['icc']}"


def _set_options(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that determine which samples there are, and how they are stored."""
    yield f"--codec {settings['codec']}"
    yield f"--sample {settings['sample']}"
    yield f"--shard-bytes {settings['shard_bytes']}"
    if settings["val_fraction"] is not None:
        yield f"--val-fraction {settings['val_fraction']}"
    yield f"--seed {settings['seed']}"


def _is_built_in(recipe: Mapping[str, Any]) -> bool:
    """Return whether this release has the recipe: one of an older release may have had other steps."""
    return recipe["name"] in BUILT_IN and dump_json(load_recipe(recipe["name"]).plain) == dump_json(recipe)


def _wrapped(words: Iterable[str]) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)
