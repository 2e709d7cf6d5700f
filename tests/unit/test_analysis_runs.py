"""Energies, families, spectra, exponents and ensembles, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from nlsim.analysis.energy import energy_drift, power_balance
from nlsim.analysis.ensemble import summarise_ensemble
from nlsim.analysis.family import refine
from nlsim.analysis.lyapunov import largest_exponent, parting_rate
from nlsim.analysis.spectrum import dominant_frequency, power_spectrum


def over_time(times: np.ndarray, values: np.ndarray, *dims: str) -> xr.DataArray:
    return xr.DataArray(values, {"time": times}, ("time", *dims))


def test_drift_tells_an_oscillation_from_a_loss() -> None:
    times = np.linspace(0, 20 * np.pi, 2001)
    both = over_time(times, np.stack([2 + 0.1 * np.sin(times), 2 - 0.01 * times], axis=1), "member")
    found = energy_drift(both)
    np.testing.assert_allclose(found.largest, [0.1, 0.2 * np.pi], rtol=1e-12)
    # the slope of sin over N periods of T = 2πN is −12 ∫(t − T/2) sin/T³ = −12·T/T³·(−1)·(−1) = −12/T²
    np.testing.assert_allclose(found.rate, [-0.1 * 12 / times[-1] ** 2, -0.01], rtol=1e-2)
    np.testing.assert_array_equal(found.scale, [2, 2])
    with pytest.raises(ValueError, match="needs 2 frames"):
        energy_drift(both.isel(time=[0]))


def test_power_balances_energy_up_to_the_trapezium_rule() -> None:
    times = np.linspace(1, 3, 101)
    energy, power = over_time(times, np.exp(-2 * times)), over_time(times, -2 * np.exp(-2 * times))
    residual = power_balance(energy, power)
    step = 0.02
    bound = 2 * step**2 * 8 * np.exp(-2) / 12  # (t − t₀) h² max|P̈|/12
    assert 0 < float(abs(residual).max()) <= bound
    missing = power_balance(energy, 0.5 * power)  # half of the power is not accounted for
    np.testing.assert_allclose(missing[-1], 0.5 * (np.exp(-6) - np.exp(-2)), atol=bound)
    with pytest.raises(ValueError, match="same times"):
        power_balance(energy, power.assign_coords(time=times + 1))


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("ratio", [2.0, 3.0])
def test_a_family_shows_its_order_and_limit(order: int, ratio: float) -> None:
    exact = over_time(np.arange(5.0), np.arange(1.0, 6.0))
    steps = [0.1 / ratio**level for level in range(4)]
    family = {h: exact * (1 + 0.5 * h**order + 0.3 * h ** (order + 1)) for h in steps}
    found = refine(family)
    assert found.steps == tuple(steps)
    # the next term bends the slope by less than 0.3/0.5 · h_coarse·(…)/ln ratio < h_coarse of the last triple
    assert found.orders[-1] == pytest.approx(order, abs=steps[1])
    # cancelled: the term of order p; left: the next, with a factor below (ratio − 1)⁻¹·ratio ≤ 2
    left = 2 * 0.3 * steps[-2] ** (order + 1) * 5
    assert float(abs(found.limit - exact).max()) <= left
    assert float(abs(found.limit - exact).max()) < float(abs(family[steps[-1]] - exact).max())


def test_a_family_uses_common_times_and_refuses_what_it_cannot_read() -> None:
    def run(h: float, times: list[float]) -> xr.DataArray:
        return over_time(np.array(times), np.array(times) * (1 + h))

    assert refine({0.4: run(0.4, [1.0, 2.0]), 0.2: run(0.2, [2.0, 3.0]), 0.1: run(0.1, [2.0])}).limit.values == (
        pytest.approx([2.0], abs=1e-15)
    )
    for family, message in (
        ({0.4: run(0.4, [1.0]), 0.2: run(0.2, [1.0])}, "three positive steps"),
        ({0.4: run(0.4, [1.0]), 0.2: run(0.2, [1.0]), 0.05: run(0.05, [1.0])}, "one ratio"),
        ({0.4: run(0.4, [1.0]), 0.2: run(0.2, [2.0]), 0.1: run(0.1, [1.0])}, "times that all"),
        ({0.4: run(0.4, [1.0]), 0.2: run(0.2, [1.0]), 0.1: run(0.2, [1.0])}, "runs that differ"),
    ):
        with pytest.raises(ValueError, match=message):
            refine(family)


@pytest.mark.parametrize("count", [400, 401])
def test_the_spectrum_holds_the_variance_and_knows_the_frequency(count: int) -> None:
    times = 5 + 0.05 * np.arange(count)
    rng = np.random.default_rng(5)
    noise = over_time(times, rng.standard_normal((count, 3)), "neuron")
    power = power_spectrum(noise, window="none")
    assert power.dims == ("neuron", "frequency")
    spacing = 1 / (count * 0.05)
    # Parseval: an identity, so round-off only
    np.testing.assert_allclose(power.sum("frequency") * spacing, noise.var("time"), rtol=1e-12)
    tone = over_time(times, 3 + 2 * np.sin(2 * np.pi * 2.3 * times))
    seen = power_spectrum(tone)
    assert float(dominant_frequency(seen)) == pytest.approx(2.3, abs=spacing)
    # Hann's line is at most four bins wide: all of the tone's power 2²/2 lies there, but the −31 dB of the side lobes
    near = seen.where(abs(seen["frequency"] - 2.3) < 3 * spacing, drop=True).sum() * spacing
    assert float(near) == pytest.approx(2.0, rel=2e-2)


def test_uneven_times_have_no_spectrum() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.5, 4.0])
    with pytest.raises(ValueError, match=r"evenly spaced frames; given 5, 0\.5 to 1\.5 apart"):
        power_spectrum(over_time(times, times))
    with pytest.raises(ValueError, match="given 3"):
        power_spectrum(over_time(times[:3], times[:3]))


def test_the_logistic_map_has_exponent_ln_two() -> None:
    rng = np.random.default_rng(11)
    orbit = np.empty(4000)
    orbit[0] = rng.uniform(0.2, 0.8)
    for at in range(1, len(orbit)):
        orbit[at] = 4 * orbit[at - 1] * (1 - orbit[at - 1])
    # ln|f'| has the standard deviation π/√12 = 0.907 under the invariant measure: 0.907/√4000 = 0.014 for one step of
    # all pairs; neighbours lie 1/4000 apart, so after 5 doublings still below 0.01 of the attractor. Three deviations.
    trajectory = over_time(np.arange(4000.0), orbit)
    assert largest_exponent(trajectory, horizon=5, apart=10) == pytest.approx(np.log(2), abs=0.045)
    half = over_time(0.5 * np.arange(4000.0), orbit)  # the same in a time that runs twice as fast
    assert largest_exponent(half, horizon=5, apart=10) == pytest.approx(2 * np.log(2), abs=0.09)


@pytest.mark.parametrize("rate", [-1.0, -0.25])
def test_a_linear_flow_has_its_rate(rate: float) -> None:
    times = np.linspace(0, 3, 301)
    direction = np.array([3.0, -4.0])
    line = over_time(times, np.exp(rate * times)[:, None] * direction, "neuron")
    # every distance on the line shrinks by e^(rate·h) a frame, whichever pairs are formed; round-off of neighbours
    # 1e-2 apart at unit size: 1e-16/1e-3, over the horizon
    assert largest_exponent(line, horizon=20, apart=5) == pytest.approx(rate, abs=1e-9)


def test_twins_part_at_the_rate_of_the_flow() -> None:
    times = np.linspace(0, 4, 81)
    base = over_time(times, np.cos(times)[:, None] * np.ones(2), "neuron")
    gap = 1e-3 * np.exp(1.5 * times)
    other = base + over_time(times, gap[:, None] * np.array([0.6, 0.8]), "neuron")
    # round-off of the difference: 2e-16/1e-3
    assert parting_rate(base, other) == pytest.approx(1.5, abs=1e-10)
    saturated = base + over_time(times, np.minimum(gap, 0.1)[:, None] * np.array([0.6, 0.8]), "neuron")
    assert parting_rate(base, saturated, ceiling=0.09) == pytest.approx(1.5, abs=1e-10)
    assert parting_rate(base, saturated) < 1.4
    with pytest.raises(ValueError, match="frames with a difference"):
        parting_rate(base, base)
    with pytest.raises(ValueError, match="same times"):
        parting_rate(base, base.assign_coords(time=times + 1))


def test_an_ensemble_has_its_mean_and_interval() -> None:
    values = np.random.default_rng(2).normal(3.0, 2.0, (4, 10))
    values[1, 3:5] = np.nan  # two members have ended
    values[2, 1:] = np.nan  # all but one
    values[3] = np.nan
    found = summarise_ensemble(over_time(np.arange(4.0), values, "ensemble"), confidence=0.9)
    assert found["count"].values.tolist() == [10, 8, 1, 0]
    for at in (0, 1):
        left = values[at][np.isfinite(values[at])]
        low, high = stats.t.interval(0.9, len(left) - 1, left.mean(), stats.sem(left))
        np.testing.assert_allclose(
            [found[name][at] for name in ("mean", "deviation", "low", "high")],
            [left.mean(), left.std(ddof=1), low, high],
            rtol=1e-9,
        )
    assert found["mean"][2] == values[2, 0]
    assert found[["deviation", "low", "high"]].isel(time=[2, 3]).to_array().isnull().all()


def test_the_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(8).normal(1.0, 3.0, (4000, 5))
    found = summarise_ensemble(over_time(np.arange(4000.0), draws, "ensemble"), confidence=0.8)
    covered = float(((found["low"] <= 1) & (found["high"] >= 1)).mean())
    assert covered == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 4000))  # four standard errors


@pytest.mark.parametrize(("options", "message"), [({"confidence": 1.0}, "confidence"), ({"dim": "seed"}, "no axis")])
def test_nonsense_about_ensembles_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise_ensemble(over_time(np.arange(2.0), np.zeros((2, 3)), "ensemble"), **options)
