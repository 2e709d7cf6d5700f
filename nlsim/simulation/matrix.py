"""Matrices that a scenario gives entry by entry: their shape, and whether they can be weights or covariances."""

from __future__ import annotations

import torch

from nlsim.errors import ScenarioError
from nlsim.scenario.load import LoadedScenario


def check_shape(source: LoadedScenario, key: str, given: list[list[float]], rows: int, columns: int) -> None:
    """Refuse a matrix of the table [system] that is not of this shape."""
    widths = {len(row) for row in given}
    if len(given) != rows or widths != {columns}:
        shape = f"{len(given)} rows of {' or '.join(map(str, sorted(widths)))}"
        raise ScenarioError(
            f"The matrix '{key}' does not fit the others.",
            where=source.where("system", key),
            given=shape,
            allowed=f"{rows} × {columns}, a list of {rows} rows",
        )


def check_definite(
    source: LoadedScenario, key: str, given: list[list[float]], problem: str, *, is_strict: bool
) -> None:
    """Refuse a square matrix of the table [system] that is not symmetric and positive (semi-)definite."""
    matrix = torch.tensor(given, dtype=torch.float64)
    scale = float(matrix.abs().max())
    if bool((matrix == matrix.mT).all()):
        least = float(torch.linalg.eigvalsh(matrix)[0])
        # n roundings of the largest entry are what an eigenvalue 0 is found as
        rounding = 4e-16 * len(matrix) * scale
        if least > rounding or (not is_strict and least >= -rounding):
            return
        found = f"a smallest eigenvalue of {least:.3g}"
    else:
        found = "a matrix that is not symmetric"
    raise ScenarioError(
        problem,
        where=source.where("system", key),
        given=found,
        allowed=f"symmetric, all eigenvalues {'positive' if is_strict else 'at least 0'}",
    )
