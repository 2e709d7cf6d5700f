"""The house style: colours that colour-blind readers can tell apart, on a screen and in print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
PURPLE, SKY = "#CC79A7", "#56B4E9"
"""Okabe & Ito's colours."""

CYCLE: Final = (BLUE, RED, ORANGE, GREEN, SKY, PURPLE, GREY)
"""Colours of lines in their order; neighbours differ in lightness too, so that grey print tells them apart."""

DASHES: Final[tuple[Any, ...]] = ("-", "--", "-.", ":")
"""Dashes of lines, changed when the colours are used up."""


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of the line of this number, from 0; they repeat after 28 lines."""
    turn, place = divmod(number, len(CYCLE))
    return {"color": CYCLE[place], "linestyle": DASHES[turn % len(DASHES)]}


def plain(axes: Axes, *, title: str, xlabel: str, ylabel: str) -> None:
    """Give axes their words, and take away the frame where it says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
