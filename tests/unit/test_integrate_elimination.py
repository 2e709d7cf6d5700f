"""The chain of blocks against a dense solve, also where the Riccati recursion does not exist."""

from __future__ import annotations

import pytest
import torch
from support.learning import draw

from nlsim.integrate.elimination import eliminate, solve_separated


def dense(left, right, missed, states):
    """Assemble and solve everything at once."""
    steps, size = missed.shape
    matrix = torch.zeros((steps + 1) * size, (steps + 1) * size, dtype=torch.float64)
    hand = torch.zeros((steps + 1) * size, dtype=torch.float64)
    row = 0
    for i in range(states):
        matrix[row, i] = 1.0
        row += 1
    for k in range(steps):
        matrix[row : row + size, k * size : (k + 1) * size] = left[k]
        matrix[row : row + size, (k + 1) * size : (k + 2) * size] = right[k]
        hand[row : row + size] = -missed[k]
        row += size
    for i in range(states, size):
        matrix[row, steps * size + i] = 1.0
        row += 1
    return torch.linalg.solve(matrix, hand).view(steps + 1, size)


@pytest.mark.parametrize(("size", "states"), [(2, 1), (6, 3), (5, 2), (4, 4), (4, 0), (1, 1)])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_random_chains(size, states, steps):
    left, right, missed = draw(1, steps, size, size), draw(2, steps, size, size), draw(3, steps, size)
    found, expected = solve_separated(left, right, missed, states), dense(left, right, missed, states)
    # both are backward stable: the difference is bounded by the condition, at most some 1e5 for these
    assert float((found - expected).abs().max()) <= 1e-10 * max(1.0, float(expected.abs().max()))
    assert float(found[0, :states].abs().sum() + found[-1, states:].abs().sum()) == 0.0


def test_a_pivot_that_a_recursion_without_pivoting_would_divide_by():
    # a quarter turn: y₁ = p₀, p₁ = −y₀; at the first node δy is known and the rows say nothing about it
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    left, right = -turn.expand(4, 2, 2), torch.eye(2, dtype=torch.float64).expand(4, 2, 2)
    missed = draw(4, 4, 2)
    assert float((solve_separated(left, right, missed, 1) - dense(left, right, missed, 1)).abs().max()) <= 1e-14


def test_growth_and_decay_together_lose_no_digits():
    # a saddle with rates ±1 over a hundred units of time: a dense solve is fine, and so must the chain be, although
    # the product of its steps is e^{100}
    steps, h = 1000, 0.1
    turn = torch.tensor([[0.0, -1.0], [-1.0, 0.0]], dtype=torch.float64)
    one = torch.eye(2, dtype=torch.float64)
    left, right = (-one - h / 2 * turn).expand(steps, 2, 2), (one - h / 2 * turn).expand(steps, 2, 2)
    missed = draw(5, steps, 2)
    found = solve_separated(left, right, missed, 1)
    remaining = (left @ found[:-1, :, None] + right @ found[1:, :, None]).squeeze(-1) + missed
    assert float(remaining.abs().max()) <= 1e-13 * float(found.abs().max())
    assert float(found.abs().max()) <= 20.0  # a bounded inverse: sums of e^{−|t−s|} of numbers below 1


def test_singular_chains_are_not_finite():
    # nothing is said of the last state
    left = torch.zeros(1, 2, 2, dtype=torch.float64)
    right = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    assert not bool(torch.isfinite(solve_separated(left, right, draw(6, 1, 2), 1)).all())


def test_elimination_leaves_rows_without_the_unknown():
    block, rest = draw(7, 4, 5, 3), draw(8, 4, 5, 2)
    upper, solved, left = eliminate(block, rest)
    # choose b, find a by least squares on the whole, compare with back substitution when b fulfils the rest
    _, _, vh = torch.linalg.svd(left)
    b = vh[:, -1:].mT  # left has two rows and two columns: the nearest to a null vector
    a = torch.linalg.solve_triangular(upper, -solved @ b, upper=True)
    whole = block @ a + rest @ b
    expected = torch.linalg.vector_norm(left @ b, dim=(-2, -1))
    # the rows that remain are combinations of the others: they vanish together
    assert bool((torch.linalg.vector_norm(whole, dim=(-2, -1)) <= 10 * expected + 1e-13).all())
    assert float(torch.tril(upper, -1).abs().max()) == 0.0
