"""The short form for a vector field of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nlsim
from nlsim.core.state import state_class
from nlsim.errors import CapabilityError, NlsimError, UnknownNameError


def rotate(t: float, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([y[1], -y[0]])


Y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        # local error of RK4 is at most h⁵/120 a step on a rotation: 1000 steps of 0.01 add up to 1e-9
        ({"dt": 0.01}, 1e-9),
        ({"stepper": "adaptive", "method": "dopri8", "rtol": 1e-10, "atol": 1e-12}, 1e-8),
        # Heun: h²/6 per unit of time
        ({"stepper": "heun", "dt": 0.001}, 1e-5),
    ],
)
def test_rotation(settings: dict, tolerance: float) -> None:
    data = nlsim.simulate(rotate, Y0, until=10.0, **settings)
    t = data["time"].values
    assert len(t) == 101
    assert t[-1] == 10.0
    np.testing.assert_allclose(data["state"][:, 0], np.cos(t), rtol=0, atol=tolerance)
    assert data.attrs["ending"] == "reached_end"
    assert data["state"].dtype == np.float64


def test_time_reaches_the_field() -> None:
    data = nlsim.simulate(lambda t, y: torch.full_like(y, math.cos(t)), Y0, until=2.0, dt=0.01, start=1.0)
    # RK4 is Simpson's rule here: error below h⁴/2880 per unit of time
    assert float(data["state"][-1, 0]) == pytest.approx(1 + math.sin(2.0) - math.sin(1.0), abs=1e-11)


def test_state_may_be_a_tree() -> None:
    @state_class
    class Pair:
        position: tuple[torch.Tensor, ...]
        speed: torch.Tensor

    start = Pair((Y0[0], Y0), torch.zeros(2, 3, dtype=torch.float32))
    data = nlsim.simulate(lambda t, y: Pair(y.position, y.speed + 1), start, until=1.0, dt=0.1, every=0.5)
    assert set(data.data_vars) == {"position_1", "position_2", "speed"}
    assert data["speed"].shape == (3, 2, 3)
    assert data["speed"].dtype == np.float32


def test_divergence_is_an_ending_not_an_exception() -> None:
    data = nlsim.simulate(lambda t, y: y * y, Y0, until=2.0, dt=0.01)
    assert data.attrs["ending"] == "diverged"
    assert "state is not finite" in data.attrs["ending_detail"]
    assert 0.9 < float(data["time"][-1]) < 1.5  # blows up at t = 1


def test_the_state_given_is_kept() -> None:
    start = Y0.clone()
    nlsim.simulate(rotate, start, until=1.0, dt=0.1)
    assert torch.equal(start, Y0)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"until": 1.0}, NlsimError, "needs a step"),
        ({"until": math.inf, "dt": 0.1}, NlsimError, "empty or infinite"),
        ({"until": 1.0, "dt": math.inf}, NlsimError, "dt > 0"),
        ({"until": 1.0, "dt": 0.1, "every": 0.0}, NlsimError, "every > 0"),
        ({"until": 1.0, "dt": 0.1, "every": -1.0}, NlsimError, "every > 0"),
        ({"until": 1.0, "dt": 0.1, "every": math.nan}, NlsimError, "every > 0"),
        ({"until": 1.0, "dt": 0.1, "stepper": "adaptive"}, NlsimError, "Leave dt out"),
        ({"until": 1.0, "stepper": "adaptive", "method": "dopri55"}, NlsimError, "dopri5"),
        ({"until": 1.0, "stepper": "adaptive", "norm": "foo"}, NlsimError, "rms"),
        ({"until": 1.0, "stepper": "adaptive", "rtol": -1.0}, NlsimError, "rtol"),
        ({"until": 1.0, "stepper": "adaptive", "rtoll": 1.0}, NlsimError, "rtoll"),
        ({"until": 1.0, "dt": -0.1}, NlsimError, "dt > 0"),
        ({"until": 0.0, "dt": 0.1}, NlsimError, "horizon is empty or infinite"),
        ({"until": 1.0, "dt": 0.1, "stepper": "rk5"}, UnknownNameError, "Did you mean 'rk4'"),
        ({"until": 1.0, "dt": 0.1, "rtol": 1e-3}, NlsimError, "takes no tolerances"),
        ({"until": 1.0, "dt": 0.1, "stepper": "implicit_sweep"}, CapabilityError, "Relaxing"),
    ],
)
def test_mistakes(settings: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        nlsim.simulate(rotate, Y0, **settings)


def test_public_names_are_lazy_and_complete() -> None:
    assert set(nlsim.__all__) <= set(dir(nlsim))
    for name in nlsim.__all__:
        assert getattr(nlsim, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nlsim.nothing  # noqa: B018


@pytest.mark.parametrize("until", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("every", [0.01, 0.02, 0.5])
def test_adaptive_blow_up_is_divergence_wherever_the_record_times_fall(until: float, every: float) -> None:
    data = nlsim.simulate(lambda t, y: y * y, Y0[:1], until=until, stepper="adaptive", every=every)
    assert data.attrs["ending"] == "diverged"
    assert "state blows up" in data.attrs["ending_detail"]


def test_the_default_record_times_leave_dt_alone() -> None:
    assert nlsim.simulate(rotate, Y0, until=1.0, dt=0.5).attrs["steps"] == 2
    assert nlsim.simulate(rotate, Y0, until=1.0, dt=0.03).attrs["steps"] == 34  # 33 whole steps and one short
    assert nlsim.simulate(rotate, Y0, until=10.0, dt=0.01).sizes["time"] == 101
