"""The command ``nlsim``: parse, hand over, and turn our errors into one clear screen."""

from __future__ import annotations

import sys

import typer

from nlsim.cli.check import check
from nlsim.cli.compare import compare
from nlsim.cli.listing import listing
from nlsim.cli.plot import plot
from nlsim.cli.recover import recover
from nlsim.cli.report import report
from nlsim.cli.resume import resume
from nlsim.cli.run import run
from nlsim.cli.show import show
from nlsim.cli.text import showable
from nlsim.cli.verify import verify
from nlsim.cli.watch import watch
from nlsim.errors import NlsimError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learning as a continuous-time dynamical system: run scenarios, look at runs, verify theorems.",
    epilog="Exit codes: 0 fine; 1 the run ended otherwise, a theorem failed, or two runs differ; 2 the caller erred.",
)
app.command("run")(run)
app.command("resume")(resume)
app.command("recover")(recover)
app.command("check")(check)
app.command("watch")(watch)
app.command("show")(show)
app.command("plot")(plot)
app.command("report")(report)
app.command("compare")(compare)
app.command("list")(listing)
app.command("verify")(verify)


def main() -> None:
    """Run the command line; exit 2 with a message for errors of the caller."""
    try:
        app()
    except NlsimError as error:
        sys.stderr.write(f"error: {showable(str(error), lines=True)}\n")
        sys.exit(2)
