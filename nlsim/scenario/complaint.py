"""Turn the validator's findings into one clear error that names the user's file, line, table and key."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from nlsim.errors import ScenarioError, did_you_mean
from nlsim.scenario.model import Scenario

Where = Callable[[Sequence[str]], str]


def explain(failure: ValidationError, raw: dict[str, Any], where: Where) -> ScenarioError:
    """Return the error for the first finding, with the others named in its advice."""
    findings: dict[tuple[str, ...], list[Any]] = {}
    for finding in failure.errors(include_url=False):
        keys = _keys(finding["loc"], raw, is_missing=finding["type"] == "missing")
        if finding["type"] == "union_tag_invalid":
            keys = (*keys, "name")
        findings.setdefault(keys, []).append(finding)
    # a fault inside a value explains why the value fits no other branch of a union
    for keys in [k for k in findings if any(other[: len(k)] == k and other != k for other in findings)]:
        del findings[keys]
    # unknown keys first: the usual cause of a missing one is a misspelling beside it
    ordered = sorted(findings.items(), key=lambda item: item[1][0]["type"] != "extra_forbidden")
    keys, same = ordered[0]
    problem, given, allowed, advice = _describe(keys, same, raw)
    if len(ordered) > 1:
        others = "; ".join(f"{'.'.join(k) or 'scenario'}: {_describe(k, f, raw)[0]}" for k, f in ordered[1:6])
        advice = f"{advice + ' ' if advice else ''}Also wrong: {others}"
    return ScenarioError(problem, where=where(keys), given=given, allowed=allowed, advice=advice)


def _keys(location: tuple[int | str, ...], raw: Any, *, is_missing: bool) -> tuple[str, ...]:
    """Drop what the validator adds to a location: names of the branches of a union."""
    keys: list[str] = []
    is_entered = False  # whether the part before led into this table; a branch named like one of its keys comes here
    for position, part in enumerate(location, start=1):
        was_entered, is_entered = is_entered, False
        if isinstance(raw, dict) and isinstance(part, str):
            if was_entered and raw.get("name") == part:
                continue
            if part not in raw and not (is_missing and position == len(location)):
                continue
            keys.append(part)
            raw = raw.get(part)
            is_entered = True
        elif isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            keys.append(str(part))
            raw = raw[part]
    return tuple(keys)


def _describe(keys: tuple[str, ...], findings: list[Any], raw: Any) -> tuple[str, object, str | None, str | None]:
    """Return problem, given, allowed and advice for the findings at one key."""
    first = findings[0]
    kind, name = first["type"], keys[-1] if keys else "scenario"
    if kind == "extra_forbidden":
        known = _fields(keys[:-1], raw)
        guess = did_you_mean(name, known)
        return f"Unknown key '{name}'.", name, ", ".join(known), f"Did you mean '{guess}'?" if guess else None
    if kind == "missing":
        return f"The key '{name}' is missing.", None, _document(keys, raw), None
    if kind == "union_tag_not_found":
        return f"The table '{name}' needs a name.", None, first["ctx"].get("discriminator"), None
    if kind == "union_tag_invalid":
        tags = re.findall(r"'([^']*)'", first["ctx"]["expected_tags"])
        guess = did_you_mean(first["ctx"]["tag"], tags)
        advice = f"Did you mean '{guess}'?" if guess else None
        return f"There is no {keys[-2]} of this name.", first["ctx"]["tag"], ", ".join(tags), advice
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        guess = did_you_mean(str(first["input"]), choices)
        advice = f"Did you mean '{guess}'?" if guess else None
        return f"'{name}' has no such choice.", first["input"], ", ".join(choices), advice
    # of a union, only the branches that take this kind of value tell something
    telling = [each for each in findings if each["type"] not in ("list_type", "float_type")] or findings
    allowed = " or ".join(dict.fromkeys(_sentence(each["msg"]) for each in telling))
    return f"'{name}' is not valid.", first["input"], allowed, None


def _sentence(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _model(keys: Sequence[str], raw: Any) -> type[BaseModel] | None:
    """Return the model that describes the table at a path."""
    model: type[BaseModel] = Scenario
    for key in keys:
        raw = raw.get(key) if isinstance(raw, dict) else raw[int(key)]
        if isinstance(raw, list):
            candidates = _models(model.model_fields[key].annotation)
            if not candidates:
                return None
            model = candidates[0]
        elif not key.isdigit():
            candidates = _models(model.model_fields[key].annotation)
            named = raw.get("name") if isinstance(raw, dict) else None
            for each in candidates:
                if named in get_args(each.model_fields["name"].annotation if "name" in each.model_fields else None):
                    model = each
                    break
            else:
                if not candidates:
                    return None
                # of several kinds of table, the one that knows most of the keys that are there
                model = max(
                    candidates, key=lambda each: len(set(raw) & set(each.model_fields)) if isinstance(raw, dict) else 0
                )
    return model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _fields(keys: Sequence[str], raw: Any) -> list[str]:
    model = _model(keys, raw)
    return list(model.model_fields) if model else []


def _document(keys: Sequence[str], raw: Any) -> str | None:
    """Return what the schema says of a key."""
    model = _model(keys[:-1], raw)
    field = model.model_fields.get(keys[-1]) if model else None
    return field.description if field else None


def line_of(text: str, keys: Sequence[str]) -> int | None:
    """Find the line of a key in TOML text, or of its table, or None for what is written another way."""
    table, best = "", None
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line)
        if header:
            table = header.group(2)
            if header.group(1) == "[[":  # the n-th table of an array is called name.n
                seen[table] = seen.get(table, -1) + 1
                table = f"{table}.{seen[table]}"
            if table == ".".join(keys[: len(table.split("."))]) and keys:
                best = number
            continue
        assigned = re.match(r"\s*([A-Za-z0-9_.\-\"']+)\s*=", line)
        if assigned:
            path = [*filter(None, table.split(".")), *assigned.group(1).replace('"', "").split(".")]
            if path == list(keys[: len(path)]):
                return number
    return best
