"""A strict subset of YAML: no base-60 numbers (`4:2:0`), no octal (`010` is ten), no dates, no duplicate keys.

It has lists, mappings, strings, and the scalar values of YAML 1.2 (plus `yes` and `no`), but no aliases and no tags.
"""

import re
from collections import Counter
from typing import Any, NamedTuple

import yaml


class Scalar(NamedTuple):
    """A scalar: its source text and its parsed value."""

    text: str
    value: Any


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        refused = None
        if self.check_event(yaml.AliasEvent):  # nested aliases can expand exponentially
            refused = "aliases (*name) are not supported; write the value out"
        elif event.tag is not None:
            refused = f"tags are not supported, found {event.tag!r}"
        if refused:
            raise yaml.composer.ComposerError(None, None, refused, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        duplicate = next((key for key, count in keys.items() if count > 1), None)
        if duplicate is not None:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {duplicate!r}", node.start_mark)
        return super().construct_mapping(node, deep)


class _WrittenLoader(_Loader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        return Scalar(node.value, value) if isinstance(node, yaml.ScalarNode) else value


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE|yes|no", list("tTfFyn")),
    ("int", r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))  # PyYAML reads 010 as octal


def load_plain_yaml(text: str) -> Any:
    """Parse a single document. yaml.YAMLError when it is invalid; RecursionError when it is nested too deeply."""
    return yaml.load(text, _Loader)


def yaml_reason(error: yaml.YAMLError) -> str:
    """Return on one line what is invalid and where."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def load_as_written(text: str) -> Any:
    """Parse a single document with a `Scalar` for each value and each key."""
    return yaml.load(text, _WrittenLoader)
