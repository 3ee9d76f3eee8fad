"""Options of the commands, in place of `<!-- options: PROGRAM -->`: what `--help` prints, as Markdown."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_MARK = re.compile(r"^<!-- options: (\w+) -->$", re.MULTILINE)
_CODE = re.compile(r"`[^`]*`|(?<![\w`])--[a-z][\w-]*|\[default[^\]]*\]|(?<=  )\[[^\]]*\]$")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the options of a program and of its commands."""
    return _MARK.sub(lambda match: "\n".join(_program(match[1])), markdown)


def _program(name: str) -> Iterator[str]:
    group: click.Group = import_module(f"{name}.cli").commands
    yield from _command(click.Context(group, info_name=f"python -m {name}"), "")


def _command(context: click.Context, parents: str) -> Iterator[str]:
    """Yield the lines about a command, then about its subcommands."""
    command = context.command
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    if parents or not isinstance(command, click.Group) or command.invoke_without_command:
        yield f"## `{f'{parents} {context.info_name}'.strip()}`\n"
    yield f"{text.strip()}\n"
    yield f"```text\n{usage}\n```\n"
    if examples:
        lines = [line.strip() for line in examples.strip().splitlines()]
        yield "\n".join(["```sh", *(line for line in lines if not line.startswith("Example")), "```\n"])
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record and "--help" not in param.opts and "--version" not in param.opts:
            yield from _option(*record)
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            path = f"{parents} {context.info_name}".strip()
            yield from _command(subcommand.context_class(subcommand, info_name=name, parent=context), path)


def _option(names: str, text: str) -> Iterator[str]:
    yield f"`{names}`\n"
    yield f":   {text}\n"
