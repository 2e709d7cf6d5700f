"""The variational problem of Hamiltonian learning: its state, its Hamiltonian and partial derivatives.

The variational problem (Betti & Gori, eq. 8) weighs ``m c |dw/dt|²/2 + c ℓ`` by φ(t) = e^{θt}; here
ℓ = L + k|w|²/2. All costates are normalised, π = p/φ. With the partial Hamiltonian derivatives

* f_l = c_l (σ(a_l) − x_l),  a_l = W_l x̃_{l−1};
* h_x,l = −c_l π_l + Wᵀ_{l+1}(c_{l+1} σ'(a_{l+1}) π_{l+1}) + [l = D] c L_x;
* h_w,l = Σ_samples c_l σ'(a_l) π_l x̃ᵀ_{l−1} + c k W_l,

the systems of :mod:`nlsim.systems.hamiltonian.learning` are put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from nlsim.core.state import state_class
from nlsim.core.system import Inputs
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.loss import Loss
from nlsim.systems.network import Constant, Network

N = TypeVar("N", bound=Network)


@state_class
class LearningState:
    """Everything that evolves: activities, weights and their normalised costates.

    Attributes
    ----------
    activity : tuple of Tensor
        x_l, shape ``(..., sample, layer)``.
    weight : tuple of Tensor
        W_l, shape ``(..., layer, source[+1])``; the last column is the bias.
    costate : tuple of Tensor
        π_l = p_{x_l}/φ, shape of x_l.
    weight_costate : tuple of Tensor
        p_{W_l}/φ, shape of W_l; the weights move at −p_W/(φ m c).
    """

    activity: tuple[Tensor, ...]
    weight: tuple[Tensor, ...]
    costate: tuple[Tensor, ...]
    weight_costate: tuple[Tensor, ...]


@dataclass(frozen=True)
class LearningProblem(Generic[N]):
    """What is learned and the constants of the variational problem; shared by all its systems.

    Parameters
    ----------
    network, loss
        What is learned, and how badly it does.
    speed : tuple of (float or Tensor)
        Propagation speed c_l > 0 of each group of neurons (layer), in 1/time; 1/c_l is their time
        constant. Neurons of a digraph may differ by the network's relative speeds, whose mean is 1. The
        speed c of the functional is the mean over neurons (eq. 8).
    mass : float or Tensor
        m in (0, ∞]; ∞ freezes the weights.
    dissipation : float or Tensor
        θ = φ̇/φ ≥ 0, in 1/time.
    regularisation : float or Tensor
        k ≥ 0, weight of V = |W|²/2, biases included.
    """

    network: N
    loss: Loss
    speed: tuple[Constant, ...]
    mass: Constant
    dissipation: Constant = 0.0
    regularisation: Constant = 0.0

    @property
    def mean_speed(self) -> Constant:
        """Return c, the mean of c_l over neurons."""
        sizes = self.network.sizes
        total = sum(n * c for n, c in zip(sizes, self.speed, strict=True))
        return total / sum(sizes)

    def speed_of(self, group: int) -> Constant:
        """Return c_i of a group's neurons, broadcastable to their activities."""
        speed, relative = align(self.speed[group]), self.network.relative_speed(group)
        return speed if relative is None else speed * relative

    def initial_state(self, weights: tuple[Tensor, ...], samples: int) -> LearningState:
        """Return the Cauchy data at t = 0: activities and all costates 0 (Betti & Gori, section 4.1)."""
        activity = tuple(
            w.new_zeros((*w.shape[:-2], samples, n)) for w, n in zip(weights, self.network.sizes, strict=True)
        )
        return LearningState(
            activity,
            weights,
            tuple(torch.zeros_like(x) for x in activity),
            tuple(torch.zeros_like(w) for w in weights),
        )


def align(constant: Constant) -> Constant:
    """Give an ensemble constant two trailing axes, so that it multiplies activities and weights."""
    return constant[..., None, None] if isinstance(constant, Tensor) and constant.ndim else constant


def largest(constant: Constant) -> float:
    """Return the largest entry, in float64 (a plain number never passes through a default dtype)."""
    return float(constant.max()) if isinstance(constant, Tensor) else float(constant)


@dataclass(frozen=True)
class Partials:
    """f, h_x and h_w of the module's docstring, and the costate gradient they imply."""

    rate: tuple[Tensor, ...]
    h_activity: tuple[Tensor, ...]
    h_weight: tuple[Tensor, ...]


def partials(problem: LearningProblem[Any], state: LearningState, inputs: Inputs) -> Partials:
    """Return f = ∂H/∂π, h_x = ∂H/∂x and h_w = ∂H/∂W of the normalised Hamiltonian.

    Cost: three matrix products a layer (two for the first).
    """
    network, given = problem.network, required_input(inputs)
    rates, cotangents, sources = [], [], []
    for group, (x, weight) in enumerate(zip(state.activity, state.weight, strict=True)):
        speed, activation = problem.speed_of(group), network.activations[group]
        source = network.source(group, given, state.activity)
        a = network.pre_activation(weight, source)
        y = activation.value(a)
        rates.append(speed * (y - x))
        cotangents.append(speed * activation.slope(a, y) * state.costate[group])
        sources.append(source)
    c, k = align(problem.mean_speed), align(problem.regularisation)
    pulled = network.pull_backs(state.weight, cotangents)
    forces = network.spread_output(c * problem.loss.gradient(network.output(state.activity), required_target(inputs)))
    h_activity, h_weight = [], []
    for group, (pi, weight) in enumerate(zip(state.costate, state.weight, strict=True)):
        h = -problem.speed_of(group) * pi
        for part in (pulled[group], forces[group]):
            if part is not None:
                h = h + part
        h_activity.append(h)
        h_weight.append(network.weight_gradient(cotangents[group], sources[group], weight) + (c * k) * weight)
    return Partials(tuple(rates), tuple(h_activity), tuple(h_weight))


def hamiltonian(problem: LearningProblem[Any], state: LearningState, inputs: Inputs) -> Tensor:
    """Return H/φ = −|π_w|²/(2mc) + c ℓ + Σ π_x·f, summed over samples (Betti & Gori, eq. 11)."""
    parts = partials(problem, state, inputs)
    loss = problem.loss.value(problem.network.output(state.activity), required_target(inputs)).sum(-1)
    energy = problem.mean_speed * loss
    for f, pi in zip(parts.rate, state.costate, strict=True):
        energy = energy + (pi * f).sum((-2, -1))
    inertia = problem.mass * problem.mean_speed
    for w, pi in zip(state.weight, state.weight_costate, strict=True):
        energy = energy - pi.square().sum((-2, -1)) / (2 * inertia)
        energy = energy + 0.5 * problem.mean_speed * problem.regularisation * w.square().sum((-2, -1))
    return energy


def costate_gradient(problem: LearningProblem[Any], state: LearningState, inputs: Inputs) -> tuple[Tensor, ...]:
    """Return what the costates say ∂L/∂W_l is: Σ_samples (c_l/c) σ'(a_l) π_l x̃ᵀ_{l−1}.

    It is the force on the weights divided by −m, and tends to the backpropagation gradient as c → ∞.
    """
    c, k = align(problem.mean_speed), align(problem.regularisation)
    h_weight = partials(problem, state, inputs).h_weight
    return tuple(h / c - k * w for h, w in zip(h_weight, state.weight, strict=True))
