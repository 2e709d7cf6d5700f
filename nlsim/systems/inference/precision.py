"""How prediction errors are weighted: the precisions γ_l of a free energy, and the couplings that follow from them.

The precisions that make inference an implicit step of size α are those of normalised least mean squares,
γ_l = 1/(α (n_l + ε)) with n_l = ‖ã_{l−1}‖². They depend on the activities, and how that is treated makes four rules:

=============== =================================================== ============================================
kind            γ_l                                                 the step it makes
=============== =================================================== ============================================
exact           1/(α (n_l(ĥ) + ε)), differentiated with the energy  implicit SGD, exactly
self_consistent the same, held while the energy is differentiated   backward Euler with the *old* feedback weights
feedforward     1/(α (n_l(h) + ε)), n of the feedforward activities first order in the residual
equal           1/(α (n_L(ĥ) + ε)) in every layer                   the released rule; wrong at order 0
=============== =================================================== ============================================

Differentiating γ_{l+1} adds a local *anti-decay*: γ_{l+1} ‖e_{l+1}‖²/(n_{l+1} + ε) φ(ĥ_l) joins the feedback
Wᵀ γ_{l+1} e_{l+1}, which is the feedback through the weights that the update is about to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nlsim.errors import NlsimError, unknown_name
from nlsim.systems.inference.energy import Layers
from nlsim.systems.network import Constant

KINDS = ("exact", "self_consistent", "feedforward", "equal")


class Precision(Protocol):
    """A rule for γ_l."""

    @property
    def needs_feedforward(self) -> bool:
        """Return whether the rule looks at the normalisers of the feedforward activities."""
        ...

    def values(self, normalisers: Layers, feedforward: Layers | None, /) -> tuple[Constant, ...]:
        """Return γ_1 … γ_L: numbers, or tensors ``(..., sample, 1)``.

        ``normalisers`` are those of the activities now, ``feedforward`` those of the feedforward activities (None
        unless needed).
        """
        ...

    def anti_decay(self, gamma: Constant, normaliser: Tensor, /) -> Tensor | None:
        """Return γ/(n + ε), by which ‖e‖² φ(ĥ) joins the feedback; None where γ is not differentiated."""
        ...


@dataclass(frozen=True)
class ConstantPrecision:
    """γ_l given, one number for all layers or one a layer.

    Parameters
    ----------
    gamma : float or tuple of float
        γ_l > 0. With a clamped output the last one is the precision of the output.

    Raises
    ------
    NlsimError
        When one is not positive.
    """

    gamma: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        values = self.gamma if isinstance(self.gamma, tuple) else (self.gamma,)
        if not values or any(not value > 0 for value in values):
            raise NlsimError(
                "A precision is an inverse variance.",
                where="precision",
                given=self.gamma,
                allowed="numbers above 0",
                advice="A layer that is not to be held at its prediction needs a small precision, not none.",
            )

    @property
    def needs_feedforward(self) -> bool:
        """Return False."""
        return False

    def values(self, normalisers: Layers, feedforward: Layers | None) -> tuple[Constant, ...]:
        """Return the numbers.

        Raises
        ------
        NlsimError
            When there are not as many as layers.
        """
        if not isinstance(self.gamma, tuple):
            return (self.gamma,) * len(normalisers)
        if len(self.gamma) != len(normalisers):
            raise NlsimError(
                "There must be one precision a layer.",
                where="precision",
                given=f"{len(self.gamma)} numbers",
                allowed=f"{len(normalisers)}, or a single number for all",
            )
        return self.gamma

    def anti_decay(self, gamma: Constant, normaliser: Tensor) -> None:
        """Return None: a constant has no derivative."""
        return


@dataclass(frozen=True)
class StepPrecision:
    """Precisions under which inference and a normalised update make a step of size α.

    Parameters
    ----------
    rate : float or Tensor
        α > 0; a tensor with the ensemble axes is given two axes of size 1 at its end first.
    kind : str
        ``exact``, ``self_consistent``, ``feedforward`` or ``equal``; see the module.
    epsilon : float
        ε ≥ 0, added to every normaliser: the quadratic penalty of a step that need not be realised exactly.

    Raises
    ------
    NlsimError, UnknownNameError
        For values out of range and for another kind.
    """

    rate: Constant
    kind: str = "exact"
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of precision", self.kind, KINDS, where="precision")
        smallest = float(self.rate.min()) if isinstance(self.rate, Tensor) else self.rate
        if not (smallest > 0 and self.epsilon >= 0):
            raise NlsimError(
                "A step has a positive size and a normaliser that is not made smaller.",
                where="precision",
                given=f"rate {smallest:g}, epsilon {self.epsilon:g}",
                allowed="rate > 0, epsilon ≥ 0",
            )

    @property
    def needs_feedforward(self) -> bool:
        """Return whether γ is that of the feedforward activities."""
        return self.kind == "feedforward"

    def values(self, normalisers: Layers, feedforward: Layers | None) -> tuple[Constant, ...]:
        """Return 1/(α (n_l + ε)), shape ``(..., sample, 1)`` each."""
        used: Layers
        if self.kind == "feedforward":
            assert feedforward is not None
            used = feedforward
        elif self.kind == "equal":
            used = (normalisers[-1],) * len(normalisers)
        else:
            used = normalisers
        return tuple(1.0 / (self.rate * (n + self.epsilon)) for n in used)

    def anti_decay(self, gamma: Constant, normaliser: Tensor) -> Tensor | None:
        """Return γ/(n + ε) when γ is differentiated."""
        if self.kind != "exact":
            return None
        return torch.as_tensor(gamma) / (normaliser + self.epsilon)
