"""Cosines of directions with closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray

from nlsim.analysis.alignment import cosine, path_alignment, update_alignment

EPS = 2.0**-52
ANGLES = np.linspace(0, math.pi, 13)


@pytest.mark.parametrize("length", [1e-300, 1e-10, 1.0, 1e10, 1e300])
def test_the_cosine_of_a_turned_vector_is_that_of_the_angle(length: float) -> None:
    turned = np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1) * length
    # a unit vector rounds a handful of times
    np.testing.assert_allclose(cosine([3.0, 0.0], turned), np.cos(ANGLES), rtol=0, atol=8 * EPS)


def test_cosines_are_never_above_one() -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 7))
    assert cosine(vectors, vectors).max() <= 1.0
    np.testing.assert_allclose(cosine(vectors, vectors), 1.0, rtol=0, atol=20 * EPS)
    np.testing.assert_allclose(cosine(vectors, -2.5 * vectors), -1.0, rtol=0, atol=20 * EPS)


def test_what_has_no_direction_has_no_cosine() -> None:
    found = cosine([[0.0, 0.0], [1.0, float("nan")], [1.0, float("inf")], [1.0, 1.0]], [1.0, 0.0])
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert found[3] == pytest.approx(math.sqrt(0.5), rel=4 * EPS)


def test_channels_are_arrays() -> None:
    channel = xarray.DataArray(np.eye(3), dims=("time", "layer_2"))
    np.testing.assert_allclose(cosine(channel, np.ones(3)), 3**-0.5, rtol=8 * EPS)


@pytest.mark.parametrize("wrong", [(1.0, [1.0]), ([1.0, 2.0], [1.0]), ([[1.0], [2.0]], [1.0, 2.0])])
def test_vectors_that_do_not_fit_are_refused(wrong: tuple[object, object]) -> None:
    with pytest.raises(ValueError, match="vectors of one length"):
        cosine(*wrong)  # type: ignore[arg-type]


def test_the_path_of_one_linear_layer_is_straight() -> None:
    """h' = h + α n (y − h): cos 1 for α > 0; and for two linear neurons in a row the angle is worked out by hand."""
    h, y = np.array([0.3, -0.2, 0.5]), np.array([1.0, 0.0, 0.0])
    for alpha in (0.1, 3.0):
        assert path_alignment(h, h + alpha * (y - h), y) == pytest.approx(1.0, abs=8 * EPS)
    assert path_alignment(h, h - 0.1 * (y - h), y) == pytest.approx(-1.0, abs=8 * EPS)
    # a kernel K = diag(1, 4) turns r = (1, 1): cos = ⟨(1, 4), (1, 1)⟩/(√17 √2) = 5/√34
    found = path_alignment([[0.0, 0.0]], [[0.01, 0.04]], [[1.0, 1.0]])
    assert found.shape == (1,)
    assert found[0] == pytest.approx(5 / math.sqrt(34), rel=8 * EPS)
    assert np.isnan(path_alignment(h, h, y))
    assert np.isnan(path_alignment(y, h, y))


def test_the_update_of_steepest_descent_is_aligned() -> None:
    rng = np.random.default_rng(1)
    gradient = [rng.standard_normal((4, 3)), rng.standard_normal((2, 5))]
    assert update_alignment([-0.3 * g for g in gradient], gradient) == pytest.approx(1.0, abs=20 * EPS)
    # layers at their own rates: cos = Σ r_l G_l/√(Σ r_l² G_l · Σ G_l) with G_l = ‖g_l‖², 1 in every layer
    sizes, rates = [float((g * g).sum()) for g in gradient], (1.0, 7.0)
    scaled = [-r * g for r, g in zip(rates, gradient, strict=True)]
    expected = sum(r * s for r, s in zip(rates, sizes, strict=True)) / math.sqrt(
        sum(r * r * s for r, s in zip(rates, sizes, strict=True)) * sum(sizes)
    )
    assert expected < 0.95
    assert update_alignment(scaled, gradient) == pytest.approx(expected, rel=20 * EPS)
    assert update_alignment(scaled[:1], gradient[:1]) == pytest.approx(1.0, abs=20 * EPS)


def test_members_are_looked_at_one_by_one() -> None:
    rng = np.random.default_rng(2)
    update, gradient = ([rng.standard_normal((6, 4, 3)), rng.standard_normal((6, 2, 5))] for _ in range(2))
    together = update_alignment(update, gradient, ensemble_axes=1)
    assert together.shape == (6,)
    for k in range(6):
        alone = update_alignment([u[k] for u in update], [g[k] for g in gradient])
        assert together[k] == pytest.approx(float(alone), abs=20 * EPS)


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one gradient of its shape"):
        update_alignment([np.ones((2, 3))], [np.ones((3, 2))])
    with pytest.raises(ValueError, match="one gradient of its shape"):
        update_alignment([], [])
