"""`python -m trainer preset`: the settings of published trainings, for `--preset`."""

import click

from srshards.terminal.help import Group
from srshards.terminal.text import Choice
from trainer.presets import PRESETS, preset_text


@click.group(
    "preset", cls=Group, invoke_without_command=True, short_help="List and print the settings that --preset names."
)
@click.pass_context
def preset_commands(context: click.Context) -> None:
    """List the presets: settings of published trainings, which --preset applies to a new run.

    \b
    Examples:
      python -m trainer preset
      python -m trainer preset show realesrgan
    """
    if context.invoked_subcommand is None:
        width = max(map(len, PRESETS))
        for name, preset in PRESETS.items():
            click.echo(f"{name:{width}}  {preset.summary}")


@preset_commands.command("show", short_help="Print the settings of a preset, with their sources.")
@click.argument("name", type=Choice(PRESETS), metavar="NAME")
def show_command(name: str) -> None:
    """Print the settings of a preset, with their sources, as a file that can be edited and passed as --config.

    \b
    Example:
      python -m trainer preset show realesrnet > mine.yaml
    """
    click.echo(preset_text(name), nl=False)
