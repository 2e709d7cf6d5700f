"""Formulas of the site."""

from __future__ import annotations

import pytest
from docutils.utils.math import MathError, latex2mathml
from nlsim_docs.mathml import with_subscripts_beside


def mathml(tex: str) -> str:
    return "".join(with_subscripts_beside(latex2mathml.tex2mathml(tex)).split("\n")).replace("  ", "")


@pytest.mark.parametrize("tex", [r"\dot{x}_l", r"\tilde{x}_l", r"\ddot x_l"])
def test_index_of_an_accented_letter_stands_beside_it(tex: str) -> None:
    found = mathml(tex)
    assert "<msub><mover" in found
    assert "munderover" not in found


def test_limits_of_a_sum_stay_below_and_above() -> None:
    assert "munderover" in mathml(r"\displaystyle\sum_{i=1}^n x_i")


def test_unknown_commands_are_refused() -> None:
    with pytest.raises(MathError):
        mathml(r"\nonsense")
