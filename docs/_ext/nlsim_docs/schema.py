"""The page on scenarios, made from the schema of the pydantic models."""

from __future__ import annotations

import json
from typing import Any

from nlsim.scenario.model import Scenario
from nlsim_docs.markdown import code, table, text

_INTRODUCTION = """\
# Scenario

Every table and key of a scenario, generated from the models that validate it. Unknown keys are refused, and numbers
are not made from text. Times have no unit of their own: [time] means the unit that you chose for the whole scenario.

Change any value from the command line with `--set table.key=value` ({doc}`/how-to/change-a-scenario`).
"""

_EXAMPLE = """\
## A whole scenario

```{literalinclude} ../../../scenarios/hamiltonian/digits.toml
:language: toml
```
"""

Schema = dict[str, Any]


def schema_page() -> str:
    """Return the page in MyST Markdown."""
    root = Scenario.model_json_schema()
    sections: dict[str, str] = {}
    _add_section(root, root, "", sections)
    return "\n".join([_INTRODUCTION, *sections.values(), _EXAMPLE])


def _add_section(schema: Schema, root: Schema, path: str, sections: dict[str, str]) -> None:
    """Add the section of one table and, after it, those of the tables within."""
    title = schema["title"]
    if title in sections:
        return
    required = schema.get("required", [])
    rows = [
        (
            code(key),
            _kind(value, root),
            "required" if key in required else _default(value),
            text(value.get("description", "")),
        )
        for key, value in sorted(schema["properties"].items(), key=lambda each: each[0] != "name")
    ]
    sections[title] = "\n".join(
        [
            f"(scenario-{title})=",
            f"## {_heading(schema, path)}\n",
            text(schema.get("description", "")) + "\n",
            table(("key", "value", "default", "meaning"), rows),
        ]
    )
    for key, value in schema["properties"].items():
        for inner in _tables(value, root):
            _add_section(inner, root, _inner_path(path, key, value), sections)


def _heading(schema: Schema, path: str) -> str:
    if not path:
        return "Top level"
    names = ", ".join(map(code, _names(schema)))
    return code(path) + (f", name = {names}" if names else "")


def _names(schema: Schema) -> list[str]:
    """Return the values of ``name`` by which a table is told from its alternatives."""
    name = schema["properties"].get("name", {})
    return [name["const"]] if "const" in name else name.get("enum", [])


def _inner_path(path: str, key: str, value: Schema) -> str:
    outer = path.strip("[]")
    dotted = f"{outer}.{key}" if outer else key
    return f"[[{dotted}]]" if _without_null(value).get("type") == "array" else f"[{dotted}]"


def _tables(value: Schema, root: Schema) -> list[Schema]:
    """Return the schemas of the tables that may stand here."""
    if "$ref" in value:
        return [root["$defs"][value["$ref"].rpartition("/")[2]]]
    inner = [*value.get("oneOf", []), *value.get("anyOf", []), *value.get("allOf", [])]
    if "items" in value:
        inner.append(value["items"])
    return [found for each in inner for found in _tables(each, root)]


def _kind(value: Schema, root: Schema) -> str:
    """Say in words what may stand here, as Markdown."""
    value = _without_null(value)
    for several in ("oneOf", "anyOf"):
        if several in value:
            return " or ".join(_kind(each, root) for each in value[several])
    if "$ref" in value:
        target = _tables(value, root)[0]
        label = ", ".join(map(code, _names(target))) or "table"
        return f"[{label}](#scenario-{target['title']})"
    if "const" in value:
        return code(f'"{value["const"]}"')
    if "enum" in value:
        return ", ".join(code(f'"{each}"') for each in value["enum"])
    match value["type"]:
        case "array":
            least = f", at least {value['minItems']}" if value.get("minItems", 0) > 1 else ""
            return f"list of {_kind(value['items'], root)}{least}"
        case "object":
            return f"table of {_kind(value['additionalProperties'], root)}"
        case "string":
            return "text"
        case "boolean":
            return "`true` or `false`"
        case kind:
            return {"number": "number", "integer": "whole number"}[kind] + _bounds(value)


def _bounds(value: Schema) -> str:
    signs = {"exclusiveMinimum": "\\>", "minimum": "≥", "exclusiveMaximum": "\\<", "maximum": "≤"}
    return "".join(f" {sign} {value[key]:g}" for key, sign in signs.items() if key in value)


def _default(value: Schema) -> str:
    default = value.get("default")
    match default:
        case None:
            return "none"
        case bool():
            return code(str(default).lower())
        case dict() if default:
            return "its defaults"
        case str():
            return code(f'"{default}"')
        case _:
            return code(json.dumps(default))


def _without_null(value: Schema) -> Schema:
    """Drop "or nothing": TOML has no null, a key is left out."""
    choices = [each for each in value.get("anyOf", []) if each.get("type") != "null"]
    if len(choices) == 1:
        return choices[0]
    return {**value, "anyOf": choices} if choices else value
