"""The command that generates a set of shards again, from the settings in its manifest."""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from srshards.format import dump_json

_INPUT = "photos"  # the manifest contains no paths but those of the photos in this folder
_OUTPUT = "shards"
_VALIDATION = "validation"
_WIDTH = 90


def generate_command(scales: list[int], settings: Mapping[str, Any]) -> str:
    """Return the `generate` command of these settings, which differ between the scales only in what follows from them.

    All settings are written out: defaults may differ between releases.
    """
    words = ["python -m shardgen generate", f"--input {_INPUT}", f"--output {_OUTPUT}"]
    words.append(f"--scales {' '.join(map(str, scales))}")
    words += (f"{name} {value}" if value else name for name, value in _options(settings))
    return _wrapped([*words, "--auto"])


def recipe_file(settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return name and YAML of the file that `generate_command` takes the recipe from; None without such a file."""
    recipe = settings["degradation"]
    if recipe is None or _is_built_in(recipe):
        return None
    text = yaml.safe_dump(recipe["steps"], sort_keys=False, allow_unicode=True, width=100)
    return f"{recipe['name']}.yaml", text


def _options(settings: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield options and their values; None for flags."""
    yield "--size", str(settings["size"])
    yield "--fit", settings["fit"]
    if settings["tile_step"] is not None:
        yield "--tile-step", str(settings["tile_step"])
    yield "--method", settings["method"]
    if recipe := settings["degradation"]:
        file = recipe_file(settings)
        yield "--degradation", shlex.quote(file[0]) if file else recipe["name"]
        yield "--variants", str(settings["variants"])
    if not settings["up"]:
        yield "--no-up", None
    if settings["sharpen_hr"]:
        yield "--sharpen-hr", None
    yield "--codec", settings["codec"]
    yield "--sample", str(settings["sample"])
    yield "--shard-bytes", str(settings["shard_bytes"])
    if settings["val_fraction"] is None:
        yield "--val", _VALIDATION
    else:
        yield "--val-fraction", str(settings["val_fraction"])
    yield "--seed", str(settings["seed"])


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
