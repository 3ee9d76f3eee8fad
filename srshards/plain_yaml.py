"""YAML without its surprises: `4:2:0` is no number in base 60, `010` is ten, nothing is a date, no key stands twice.

What is left is lists, mappings with names, text, and the plain values of YAML 1.2 (and `yes` and `no`); there are no
aliases and no tags.
"""

import re
from collections import Counter
from typing import Any, NamedTuple

import yaml


class Scalar(NamedTuple):
    """A value that is neither list nor mapping: as it is written, and what YAML takes it for."""

    text: str
    value: Any


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        refused = None
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for a billion steps
            refused = "expected no alias (*name): write it out"
        elif event.tag is not None:
            refused = f"expected no tag, found {event.tag!r}"
        if refused:
            raise yaml.composer.ComposerError(None, None, refused, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, count in keys.items() if count > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands twice", node.start_mark)
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
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))  # PyYAML's takes 010 for eight


def load_plain_yaml(text: str) -> Any:
    """The one document of `text`. yaml.YAMLError when it is none; RecursionError when it is nested beyond reason."""
    return yaml.load(text, _Loader)


def load_as_written(text: str) -> Any:
    """The same document with a `Scalar` in place of each value and each name."""
    return yaml.load(text, _WrittenLoader)
