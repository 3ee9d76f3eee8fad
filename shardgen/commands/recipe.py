"""The `recipe` command."""

import click
import yaml

from shardgen.commands.types import complete_built_in, complete_recipe
from shardgen.degradation.describe import summary
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe, recipe_text
from shardgen.degradation.steps import STEPS
from srshards.terminal.help import Group


@click.group("recipe", cls=Group, short_help="Print, check and list recipes for --degradation.")
def recipe_commands() -> None:
    """Print, check and list recipes for `generate --degradation`.

    \b
    Examples:
      python -m shardgen recipe show realesrgan > mine.yaml
      python -m shardgen recipe check mine.yaml
    """


@recipe_commands.command("show")
@click.argument("name", required=False, shell_complete=complete_built_in)
def show_command(name: str | None) -> None:
    """Print a built-in recipe; without NAME, list all of them.

    \b
    Example:
      python -m shardgen recipe show realesrgan > mine.yaml
    """
    if name is None:
        for built_in in BUILT_IN:
            click.echo(f"{built_in}: {summary(load_recipe(built_in).plain['steps'])}")
        return
    click.echo(recipe_text(name), nl=False)


@recipe_commands.command("check")
@click.argument("file", shell_complete=complete_recipe)
def check_command(file: str) -> None:
    """Check a recipe and print its steps in order, or its first error.

    \b
    Example:
      python -m shardgen recipe check mine.yaml
    """
    recipe = load_recipe(file)
    click.echo(f"{recipe.name}: {summary(recipe.plain['steps'])}")


@recipe_commands.command("steps")
def steps_command() -> None:
    """List all steps with their settings and defaults.

    \b
    Example:
      python -m shardgen recipe steps
    """
    for name, step in STEPS.items():
        click.echo(f"{name}: {step.summary}")
        for key, setting in step.settings.items():
            default = setting.default
            plain = (
                dict(default) if isinstance(default, dict) else list(default) if isinstance(default, tuple) else default
            )
            shown = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=1000)
            click.echo(f"    {key}: {shown.removesuffix(chr(10)).removesuffix('...').strip()}    # {setting.what}")
