"""How activities settle: the gradient flow of the free energy, at weights and inputs that stand still.

With couplings a_l, b_l, c_l, d_l that follow from the precisions,

    dĥ_l/dt = −a_l e_l + φ'(ĥ_l) ⊙ [b_l W_{l+1}ᵀ e_{l+1} + c_l ‖e_{l+1}‖² φ(ĥ_l)] − d_l ĥ_l,    1 ≤ l < L.

The gradient flow of F has a_l = γ_l, b_l = γ_{l+1}, c_l = γ_{l+1}/(n_{l+1} + ε) when the precisions are
differentiated, else 0. The *scaled* flow is the same divided by γ_l: it rests where the other rests, and its
stiffness does not depend on the size of the step that the precisions stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from nlsim.core.system import Fraction, Inputs, Piece
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.inference.energy import (
    Layers,
    Predictions,
    feedforward,
    free_energy,
    normaliser,
    normalisers,
    predict,
)
from nlsim.systems.inference.fused import FusedSteps
from nlsim.systems.inference.precision import ConstantPrecision, Precision, StepPrecision
from nlsim.systems.inference.sweep import relaxation_rates, squared_norms, sweep_down_
from nlsim.systems.inference.target import settle_rule
from nlsim.systems.loss import SQUARED_ERROR, Loss
from nlsim.systems.network import Constant, LayeredNetwork


@dataclass(frozen=True)
class Gains:
    """Couplings given by hand, one number for all layers: the decoupled gains of released code.

    dĥ_l/dt = −top · e_l + bottom · φ' ⊙ Wᵀ e_{l+1} − decay · ĥ_l: a preconditioned flow of the energy with
    precisions γ_l ∝ (bottom/top)^l. With top = 0 there is no rest state.

    Parameters
    ----------
    top, bottom, decay : float
        Weights of a layer's own error, of the feedback and of the decay, ≥ 0, in 1/time.
    """

    top: float
    bottom: float
    decay: float = 0.0


@dataclass(frozen=True)
class Settling:
    """What one look at the activities gives.

    Attributes
    ----------
    predictions : Predictions
        Sources and predictions of all layers.
    activity : tuple of Tensor
        ĥ_1 … ĥ_L, the output included.
    errors : tuple of Tensor
        e_1 … e_L.
    normalisers : tuple of Tensor
        n_1 … n_L, shape ``(..., sample, 1)``.
    precisions : tuple
        γ_1 … γ_L.
    """

    predictions: Predictions
    activity: Layers
    errors: Layers
    normalisers: Layers
    precisions: tuple[Constant, ...]


@dataclass(frozen=True)
class ActivityFlow:
    """The flow of the activities; its state is the tuple of those that are not given by the others.

    The state is ĥ_1 … ĥ_{L−1}, and ĥ_L behind them when the output is ``free``.

    Parameters
    ----------
    network, loss
        Convention A: hidden activations are φ, the output is linear.
    precision : Precision
        Rule for γ_l.
    output : str
        One of ``nlsim.systems.inference.target.OUTPUTS``.
    weights : tuple of Tensor
        W_l.
    is_scaled : bool
        Whether the flow is divided by γ_l.
    decay : tuple of float
        d_l of the hidden layers (empty: none).
    gains : Gains or None
        Couplings given by hand instead of those of the precisions.
    feedforward : tuple of Tensor or None
        Normalisers of the feedforward activities, when the precision looks at them.
    first, held : Tensor or None
        p_1 and the input, when it is held: then p_1 is computed once.
    """

    network: LayeredNetwork
    loss: Loss
    precision: Precision
    output: str
    weights: Layers
    is_scaled: bool = False
    decay: tuple[float, ...] = ()
    gains: Gains | None = None
    feedforward: Layers | None = None
    first: Tensor | None = None
    held: Tensor | None = None

    def settling(self, moving: Layers, inputs: Inputs) -> Settling:
        """Return predictions, errors, normalisers and precisions. Cost: one matrix product a layer."""
        hidden = moving[: self.network.depth - 1]
        if self.first is None:
            made = predict(self.network, self.weights, required_input(inputs), hidden)
        else:
            later = [sigma.value(h) for sigma, h in zip(self.network.activations, hidden, strict=False)]
            parts = [self.network.pre_activation(w, a) for w, a in zip(self.weights[1:], later, strict=True)]
            made = Predictions((required_input(inputs), *later), (self.first, *parts))
        norms = normalisers(self.weights, made)
        frozen = self.feedforward
        if frozen is None and self.precision.needs_feedforward:
            frozen = self.feedforward_normalisers(made.source[0])
        gammas = self.precision.values(norms, frozen)
        if self.output == "free":
            top = moving[-1]
        else:
            settle = settle_rule(self.output, self.loss)
            top = settle(made.prediction[-1], gammas[-1], required_target(inputs))
        activity = (*hidden, top)
        return Settling(made, activity, made.errors(activity), norms, gammas)

    def feedforward_normalisers(self, given: Tensor) -> Layers:
        """Return n_1 … n_L of the feedforward activities. Cost: one matrix product a layer but the last."""
        made = feedforward(self.network, self.weights, given)[:-1]
        above = (sigma.value(h) for sigma, h in zip(self.network.activations, made, strict=False))
        return tuple(normaliser(w, source) for w, source in zip(self.weights, (given, *above), strict=True))

    def vector_field(self, t: float, moving: Layers, inputs: Inputs) -> Layers:
        """Return dĥ/dt. Cost: two matrix products a layer, one for the first and none where it is held."""
        seen = self.settling(moving, inputs)
        hidden = range(self.network.depth - 1)
        rates = [self.hidden_velocity(layer, moving[layer], seen, seen.errors[layer + 1]) for layer in hidden]
        if self.output == "free":
            rates.append(self.output_velocity(moving[-1], seen, inputs))
        return tuple(rates)

    def hidden_velocity(self, layer: int, h: Tensor, seen: Settling, above: Tensor) -> Tensor:
        """Return dĥ/dt of a hidden layer (counted from 0) at its activity h, given the error e of the layer above."""
        own, feed, restore, decay = self.couplings(layer, seen.precisions, seen.normalisers)
        sigma, source = self.network.activations[layer], seen.predictions.source[layer + 1]
        pull = feed * self.network.pull_back(self.weights[layer + 1], above)
        if restore is not None:
            pull = pull + restore * above.square().sum(-1, keepdim=True) * source
        rate = sigma.slope(h, source) * pull - own * seen.errors[layer]
        return rate - decay * h if decay is not None else rate

    def output_velocity(self, h: Tensor, seen: Settling, inputs: Inputs) -> Tensor:
        """Return dĥ_L/dt of a free output at its activity h."""
        gamma = seen.precisions[-1]
        force = -gamma * seen.errors[-1] - self.loss.gradient(h, required_target(inputs))
        return force / gamma if self.is_scaled else force

    def couplings(
        self, layer: int, precisions: tuple[Constant, ...], normalisers: Layers
    ) -> tuple[Constant, Constant, Tensor | None, Constant | None]:
        """Return a, b, c, d of a hidden layer (counted from 0) at given γ and n; None where there is no such term."""
        if self.gains is not None:
            return self.gains.top, self.gains.bottom, None, self.gains.decay or None
        own, feed = precisions[layer], precisions[layer + 1]
        restore = self.precision.anti_decay(feed, normalisers[layer + 1])
        decay: Constant | None = self.decay[layer] if self.decay else None
        if self.is_scaled:
            restore = None if restore is None else restore / own
            decay = None if decay is None else decay / own
            own, feed = 1.0, feed / own
        return own, feed, restore, decay

    @cached_property
    def squared_norms(self) -> Layers:
        """Return ‖W_2‖² … ‖W_L‖², computed once: see :func:`~nlsim.systems.inference.sweep.squared_norms`."""
        return squared_norms(self.network, self.weights[1:])

    def rates(self, moving: Layers) -> Layers:
        """Return r_l, see :func:`~nlsim.systems.inference.sweep.relaxation_rates`."""
        return relaxation_rates(self, moving)

    def sweep_(self, t: float, moving: Layers, inputs: Inputs, dt: float, fraction: Fraction) -> None:
        """Advance in place from the output down, see :func:`~nlsim.systems.inference.sweep.sweep_down_`."""
        sweep_down_(self, moving, inputs, dt, fraction)

    def slow_rate(self) -> float:
        """Return 0: nothing that moves is stepped explicitly."""
        return 0.0

    def energy(self, t: float, moving: Layers, inputs: Inputs) -> Tensor:
        """Return the free energy of each sample, shape ``(..., sample)``.

        The flow decreases it when the precisions do not move or are differentiated; with ``gains`` or rules that
        hold moving precisions there is no such law. Cost: one matrix product a layer.
        """
        return self.energy_of(self.settling(moving, inputs), inputs)

    def energy_of(self, seen: Settling, inputs: Inputs) -> Tensor:
        """Return the free energy of each sample from what has been seen already."""
        is_soft = self.output != "clamped"
        return free_energy(
            seen.errors,
            seen.precisions,
            loss=self.loss if is_soft else None,
            output=seen.activity[-1],
            target=inputs.target,
            hidden=seen.activity[:-1],
            decay=self.decay,
        )

    def euler(self, piece: Piece, moving: Layers, t: float, dt: float, steps: int) -> Layers:
        """Return the activities after explicit Euler steps, by :mod:`nlsim.systems.inference.fused` where that fits.

        It fits held inputs without ensemble axes, decay and gains given by hand, with a clamped output at precisions
        that are numbers, and with the squared error's settled output in the scaled flow of a step whose precisions
        are not those of the feedforward pass. Cost: the matrix products, and five passes over all hidden activities.
        """
        fused = self._fused(moving, piece(t)) if steps else None
        if fused is not None and self.output == "clamped" and isinstance(self.precision, ConstantPrecision):
            gammas = [float(gamma) for gamma in self.precision.values(self.weights, None)]
            return fused.constant(dt, steps, gammas, is_scaled=self.is_scaled)
        rule = self.precision
        if (
            fused is not None
            and self.is_scaled
            and self.output == "settled"
            and self.loss is SQUARED_ERROR
            and isinstance(rule, StepPrecision)
            and isinstance(rule.rate, float)
            and not rule.needs_feedforward
        ):
            size = normaliser(self.weights[0], required_input(piece(t)))
            return fused.normalised(dt, steps, rule.rate, rule.epsilon, size, kind=rule.kind)
        for n in range(steps):
            now = t + n * dt
            rates = self.vector_field(now, moving, piece(now))
            moving = tuple(h.add(rate, alpha=dt) for h, rate in zip(moving, rates, strict=True))
        return moving

    def _fused(self, moving: Layers, inputs: Inputs) -> FusedSteps | None:
        """Return buffers for fused steps, or None where only the vector field will do."""
        has_axes = any(each.ndim != 2 for each in (*moving, *self.weights))
        if self.first is None or self.gains is not None or self.decay or has_axes or self.network.depth == 1:
            return None
        return FusedSteps(self.network, self.weights, moving, self.first, required_target(inputs))
