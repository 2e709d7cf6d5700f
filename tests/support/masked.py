"""Masked neurons for tests, and their field written out naively in numpy, neutralizers and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.integrate.control import FixedStep
from nlsim.integrate.loop import Loop
from nlsim.systems.activation import ACTIVATIONS
from nlsim.systems.masked.dynamics import MaskedNeuron
from nlsim.systems.masked.signal import MaskedSignal, Outage, Outages
from nlsim.systems.signals import Constant
from support.learning import draw

SAMPLES, NEURONS, INPUTS = 2, 3, 4
GIVEN = Inputs(draw(1, SAMPLES, INPUTS))
START = draw(2, SAMPLES, NEURONS, low=-2.0, high=2.0)
PHI = {"tanh": np.tanh, "logistic": lambda a: 1 / (1 + np.exp(-a)), "identity": lambda a: a}


def neuron(activation: str = "tanh", norm: float = 0.0, **changed: Any) -> MaskedNeuron:
    """Return neurons with weights of size 0.2 to 1, so that neutralizers are finite."""
    weight = draw(3, NEURONS, INPUTS, low=0.2) * torch.sign(draw(4, NEURONS, INPUTS))
    coupling = draw(5, NEURONS, NEURONS)
    given = {"bias": draw(6, NEURONS), "speed": 1.5, **changed}
    if norm:
        given["recurrent"] = norm * coupling / torch.linalg.matrix_norm(coupling, 2)
    return MaskedNeuron(weight, ACTIVATIONS[activation], **given)


def naive_field(system: MaskedNeuron, x: np.ndarray, u: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return dx/dt of one sample with every missing input replaced by its neutralizer."""
    phi, w = PHI[system.activation.name], system.weight.numpy()
    b, v, d = (
        np.zeros(shape) if each is None else each.numpy()
        for each, shape in (
            (system.bias, len(w)),
            (system.recurrent, (len(w), len(w))),
            (system.intrinsic, len(w)),
        )
    )
    neutral = -b[:, None] / (w.shape[1] * w)
    shown = m * np.where(m > 0, u, 0.0) + (1 - m) * neutral
    a = (w * shown).sum(1) + b + v @ (x if system.form == "state" else phi(x)) + d
    rate = system.speed * ((phi(a) if system.form == "state" else a) - x)
    return rate if system.outage == "forget" else m.mean() * rate


def scipy_run(system: MaskedNeuron, start: Tensor, stretches: list[tuple[float, np.ndarray]]) -> Tensor:
    """Return the state after stretches (length, mask) of constant mask, sample by sample, by DOP853 at rtol 1e-12."""
    ends = []
    for x, u in zip(start.numpy(), GIVEN.input.numpy(), strict=True):
        for span, m in stretches:
            solved = solve_ivp(
                lambda t, y, u=u, m=m: naive_field(system, y, u, m), (0, span), x, "DOP853", rtol=1e-12, atol=1e-13
            )
            x = solved.y[:, -1]
        ends.append(x)
    return torch.as_tensor(np.array(ends))


def blackout(start: float, stop: float) -> MaskedSignal:
    return MaskedSignal(Constant(GIVEN), (Outages((Outage(None, start, stop),), INPUTS),))


def run(system: Any, signal: Any, state: Any, stepper: Any, dt: float, until: float, records: Any = ()) -> Loop:
    """Run to the end, and return the loop; its ticks are in ``loop.ticks``."""
    loop = Loop(system, FixedStep(stepper, dt), signal, state, until=until, record_times=[*records, until])
    loop.ticks = list(loop)
    assert loop.ending == "reached_end", loop.detail
    return loop
