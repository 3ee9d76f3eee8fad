"""Run a notebook without Jupyter: Python, and the commands of IPython that notebooks of this project contain."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from helpers import TIMEOUT_S

_COMMAND = re.compile(r"^(?:!|%(?:cd|pip) ).*", re.MULTILINE)


def cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook, each with its `source` as one text."""
    found: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in found]


def run_notebook(notebook: Path, environment: dict[str, str], **parameters: object) -> tuple[str, list[Any]]:
    """Run all cells in the current folder; return what commands print, and what cells display (as objects).

    `parameters` replace the values of the cell with the tag `parameters`. AssertionError if a command fails, which
    Jupyter would only print.
    """
    names: dict[str, Any] = {}
    printed, displayed = [], []

    def command(text: str) -> None:
        filled = re.sub(r"{(.+?)}", lambda found: str(eval(found[1], names)), text)
        if filled.startswith("%cd "):
            os.chdir(filled.removeprefix("%cd "))
            return
        shell = filled.removeprefix("!") if filled.startswith("!") else f"python -m {filled.removeprefix('%')}"
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": TIMEOUT_S}
        result = subprocess.run(["bash", "-c", shell], env=environment, check=False, **output)
        assert result.returncode == 0, f"{filled}\n{result.stdout}"
        printed.append(result.stdout)

    names["__command"] = command
    for cell in cells(notebook):
        if cell["cell_type"] == "code":
            source = _COMMAND.sub(lambda line: f"__command({line[0]!r})", cell["source"])
            *statements, last = ast.parse(source).body
            exec(compile(ast.Module(statements, []), notebook.name, "exec"), names)
            if isinstance(last, ast.Expr):
                displayed.append(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
            else:
                exec(compile(ast.Module([last], []), notebook.name, "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                assert parameters.keys() <= names.keys(), "the notebook has no such parameter"
                names.update(parameters)
    return "".join(printed), [value for value in displayed if value is not None]
