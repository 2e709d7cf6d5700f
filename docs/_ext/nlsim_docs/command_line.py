"""The page on the command line, made from the commands themselves."""

from __future__ import annotations

from typing import Any

import typer

from nlsim.cli.app import app
from nlsim_docs.markdown import code, table, text

_INTRODUCTION = """\
# Command line

```text
nlsim COMMAND [OPTIONS] [ARGUMENTS]
```

| exit code | means |
| --- | --- |
| 0 | the run did what it was asked to (`reached_end` or `steady`); every theorem stands |
| 1 | the run ended otherwise ({doc}`/explanation/endings`), a theorem failed or stayed undecided, or two runs differ |
| 2 | the caller erred: the message says where, what was given, what is allowed, and what to do |

`python -m nlsim` is the same as `nlsim`.
"""


def command_line_page() -> str:
    """Return the page in MyST Markdown."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join([_INTRODUCTION, *(_section(name, command) for name, command in commands.items())])


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = ["[OPTIONS]"] if len(arguments) < len(command.params) else []
    usage = " ".join(["nlsim", name, *options, *map(_usage, arguments)])
    rows = [(code(_spelling(each)), text(each.help or "")) for each in command.params]
    return "\n".join(
        [
            f"## {code('nlsim ' + name)}\n",
            text(command.help) + "\n",
            f"```text\n{usage}\n```\n",
            table(("argument or option", "meaning"), rows),
        ]
    )


def _usage(argument: Any) -> str:
    spelt = _spelling(argument)
    return spelt if argument.required else f"[{spelt}]"


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    value = "" if parameter.is_flag else " " + (parameter.metavar or "VALUE")
    return ", ".join(parameter.opts) + value
