"""Load recipes: built-in ones by name, others from a YAML file."""

from importlib import resources
from pathlib import Path

import yaml

from shardgen.degradation.recipe import Recipe, parse_steps
from shardgen.degradation.settings import require_known
from srshards.errors import UsageError
from srshards.plain_yaml import load_plain_yaml, yaml_reason
from srshards.storage.store import parse_path

BUILT_IN = ("realesrgan", "bsrgan-light")
_OR_FILE = ", or a YAML file"


def load_recipe(name: str) -> Recipe:
    """Return the built-in recipe of this name, or the recipe in the YAML file at this path.

    UsageError when there is none, or when it is not a list of known steps with valid settings.
    """
    if name in BUILT_IN:
        return _parse(recipe_text(name), name, name)
    if not name:
        require_known(name, BUILT_IN, "recipe", _OR_FILE)
    path = parse_path(name)
    if not path.suffix and not path.exists():
        require_known(name, BUILT_IN, "recipe", _OR_FILE)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; expected a recipe (YAML), or one of {', '.join(BUILT_IN)}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected a recipe in YAML, found bytes that are not UTF-8 text") from error
    return _parse(text, path.stem, str(path))


def recipe_text(name: str) -> str:
    """Return the YAML of a built-in recipe, including comments. UsageError when there is none of this name."""
    if Path(name).is_file():
        raise UsageError(
            f"{name} is a file, but `show` prints {' or '.join(BUILT_IN)}; to check a file, run "
            f"`python -m shardgen recipe check {name}`"
        )
    require_known(name, BUILT_IN, "recipe")
    return (resources.files("shardgen.degradation") / "recipes" / f"{name}.yaml").read_text("utf-8")


def _parse(text: str, name: str, where: str) -> Recipe:
    try:
        steps = parse_steps(load_plain_yaml(text), where)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not valid YAML: {yaml_reason(error)}") from error
    except RecursionError as error:
        raise UsageError(f"{where}: nested too deeply") from error
    if not steps:
        raise UsageError(f"{where}: expected at least one step, e.g. `- blur: {{sigma: [0.2, 3]}}`")
    return Recipe(name, steps)
