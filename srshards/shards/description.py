"""Parse and validate the `json` member of a sample, which other programs may have modified."""

from collections.abc import Callable
from typing import Any

from srshards.errors import RunError
from srshards.format import EQUAL_PSNR_DB, strict_json


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(type(edge) is int for edge in value)


def _is_record(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(steps, list) and all(map(_is_step, steps)) for steps in value)


def _is_step(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("step"), str)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


_REQUIRED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "source": ("a path", _is_text),
    "class": ("a name", _is_text),
    "box": ("four integers", _is_box),
    "scale": ("an integer", lambda value: type(value) is int),
    "method": ("a name", _is_text),
}
_OPTIONAL: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "psnr_up_db": ("a number or null", lambda value: value is None or isinstance(value, (int, float))),
    "degradation": ("a list of steps for each LR image", _is_record),
    "lr_source": ("a path", _is_text),
    "up_source": ("a path", _is_text),
    "pair": ("numbers by name", lambda value: isinstance(value, dict) and all(map(_is_number, value.values()))),
    "libraries": ("versions by name", lambda value: isinstance(value, dict) and all(map(_is_text, value.values()))),
}


def parse_description(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object, in the same form for all format versions.

    `degradation` is a list of steps for each LR image, which version 3 stores as a string of JSON; `psnr_up_db` is None
    if `up` equals HR. RunError, starting with `where`, when the object does not have the form in
    docs/reference/formats.md.
    """
    value = _parse_json(data, where)
    if not isinstance(value, dict):
        raise RunError(f"{where}: expected a JSON object, found {type(value).__name__}")
    if _is_text(value.get("degradation")):
        value["degradation"] = _parse_json(value["degradation"], f"{where}: degradation")
    if value.get("psnr_up_db") == EQUAL_PSNR_DB:
        value["psnr_up_db"] = None
    for name, (what, is_valid) in {**_REQUIRED, **_OPTIONAL}.items():
        if name in value and not is_valid(value[name]):
            raise RunError(f"{where}: {name}: expected {what}, found {value[name]!r}"[:200])
        if name not in value and name in _REQUIRED:
            raise RunError(f"{where} has no {name}")
    return value


def _parse_json(text: bytes | str, where: str) -> Any:
    try:
        return strict_json(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} is not valid JSON ({error})") from error
