"""Options of the commands, in place of `<!-- options: PROGRAM -->`: what `--help` prints, as Markdown."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_MARK = re.compile(r"^<!-- options: (\w+) -->\n.*$", re.MULTILINE)  # with the line for readers of the source
_OMITTED = {"--help", "--version"}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the options of a program and of its commands."""
    return _MARK.sub(lambda match: "\n".join(_program(match[1])), markdown)


def _program(name: str) -> Iterator[str]:
    program = import_module(f"{name}.cli").commands
    return _command(click.Context(program, info_name=f"python -m {name}"))


def _command(context: click.Context) -> Iterator[str]:
    """Yield the lines about a command, then those about its subcommands."""
    command = context.command
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"## {context.command_path.removeprefix('python -m ')}\n"
    yield f"{text.strip()}\n"
    yield f"```text\n{usage}\n```\n"
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    for option in options:
        record = option.get_help_record(context)
        if record and not _OMITTED & set(option.opts):
            names, help_text = record
            yield f"`{names}`\n:   {_marked_up(help_text)}\n"
    if examples:
        lines = [line.strip() for line in examples.strip().splitlines()[1:]]  # the first one says "Examples:"
        yield "\n".join(["```sh", *lines, "```\n"])
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            yield from _command(subcommand.context_class(subcommand, info_name=name, parent=context))


def _marked_up(text: str) -> str:
    """Return a help text as Markdown, with the default and the range on a line of their own."""
    text, *notes = re.sub(r"(`[^`]*`)|([*_])", lambda match: match[1] or f"\\{match[2]}", text).split("  [")
    return "<br>".join([text, *(f"*{note.removesuffix(']')}*" for note in notes)])
