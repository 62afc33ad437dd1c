"""Overrides from the command line: `midtrain.learning_rate=3e-5 parallel.tensor=4 data.sources.math=problems.jsonl`."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from prism_nemo.errors import InputError
from prism_nemo.recipe.presets import with_preset
from prism_nemo.recipe.recipe import Recipe

SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
COUNT = re.compile(r"([+-]?\d[\d_]*(?:\.\d+)?(?:e\d+)?)([kmbt]?)", re.IGNORECASE)


def override(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """The recipe with every `dotted.key=value` applied in turn.

    Values take the type of the field; whole numbers may end in k, M, B or T (powers of ten): `midtrain.tokens=10.5B`.
    `none` clears an optional field; lists are separated by commas; `rl.preset=dapo` sets all that the preset decides,
    so it comes before what departs from it. Raises InputError naming the key or the value.
    """
    for key, text in map(_pair, assignments):
        if key == "rl.preset":
            recipe = dataclasses.replace(recipe, rl=with_preset(recipe.rl, text))
        else:
            recipe = _replace(recipe, key.split("."), text, key)
    return recipe


def override_part[T](part: T, assignments: Iterable[str], name: str) -> T:
    """One part of a recipe with every `key=value` applied in turn, as `override` does; `name`: its key, for errors."""
    for key, text in map(_pair, assignments):
        part = _replace(part, key.split("."), text, f"{name}.{key}")
    return part


def _pair(assignment: str) -> tuple[str, str]:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise InputError(f"override '{assignment}' is not of the form key=value, such as midtrain.tokens=10.5B")
    return key, text


def unknown_key(key: str, name: str, known: Sequence[str]) -> InputError:
    """The error of a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else f"; known here: {', '.join(known)}"
    return InputError(f"unknown recipe key '{key}'{hint}")


def _replace(part: Any, path: list[str], text: str, key: str) -> Any:
    name, rest = path[0], path[1:]
    if isinstance(part, dict):
        name = ".".join(path)  # data.sources.chat.ultrachat: a part of a source
        if rest and not all(isinstance(value, str) for value in part.values()):
            raise InputError(f"recipe key '{key}' goes too deep: '{path[0]}' holds a value")
        kind = type(part.get(name, "" if not part else next(iter(part.values()))))
        return {**part, name: parse(text, kind, key)}
    hints = get_type_hints(type(part))
    if name not in hints:
        raise unknown_key(key, name, list(hints))
    value, hint = getattr(part, name), hints[name]
    if not rest:
        if _part_type(hint) and text.lower() != "none":
            fields = [field.name for field in dataclasses.fields(_part_type(hint))]
            raise InputError(f"recipe key '{key}' is a part, not a value; set one of: {', '.join(fields)}")
        return dataclasses.replace(part, **{name: parse(text, hint, key)})
    if value is None and _part_type(hint):
        value = _part_type(hint)()
    if not (dataclasses.is_dataclass(value) or isinstance(value, dict)):
        raise InputError(f"recipe key '{key}' goes too deep: '{name}' is {value!r}")
    return dataclasses.replace(part, **{name: _replace(value, rest, text, key)})


def _part_type(hint: Any) -> Any:
    """The dataclass inside a hint such as `Training | None`, or None."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def parse(text: str, hint: Any, key: str) -> Any:
    """`text` as a value of the type `hint`; InputError names the key, the value and what is allowed."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if type(None) in options and text.lower() in ("none", "null"):
            return None
        return parse(text, next(option for option in options if option is not type(None)), key)
    if origin is Literal:
        return _choice(text, options, key)
    if origin is tuple:
        return tuple(parse(item.strip(), options[0], key) for item in text.split(",") if item.strip())
    try:
        return _scalar(text, hint)
    except ValueError:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, typing.cast(Any, hint))
        raise InputError(f"{key}={text}: {wanted} is wanted") from None


def _choice(text: str, options: tuple[Any, ...], key: str) -> Any:
    if text in options:
        return text
    raise InputError(f"{key}={text}: must be one of {', '.join(map(str, options))}")


def _scalar(text: str, hint: Any) -> Any:
    if hint is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError(text)
    if hint is int:
        return count(text)
    return hint(text)


def count(text: str) -> int:
    """`10.5B`, `131_072`, `25k`, `1e9` as a whole number. Raises ValueError."""
    match = COUNT.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    number = float(match[1].replace("_", "")) * SUFFIXES.get(match[2].lower(), 1)
    exact = int(match[1].replace("_", "")) if match[1].replace("_", "").lstrip("+-").isdigit() else None
    if exact is not None and not match[2]:
        return exact
    if abs(number - round(number)) > 1e-6 * max(1.0, abs(number)):
        raise ValueError(text)
    return round(number)
