"""Where inference holds the output: clamped to the target, pulled to it, or at the best compromise in closed form.

========== =================================================================================================
output     ĥ_L
========== =================================================================================================
clamped    y (hard clamp): the loss has no term of its own
free       a part of the state, pulled to y by −∂ℓ/∂ĥ_L (soft clamp)
settled    argmin ℓ(y, ĥ_L) + γ_L ‖ĥ_L − p_L‖²/2 at the prediction p_L of the moment (soft clamp at rest)
heuristic  p_L + (y − softmax p_L)/(1 + γ_L): what released code does with a softmax; only first order in 1/γ_L
========== =================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nlsim.systems.inference.closed_form import cross_entropy_target
from nlsim.systems.loss import CROSS_ENTROPY, SQUARED_ERROR, Loss
from nlsim.systems.network import Constant

OUTPUTS = ("clamped", "free", "settled", "heuristic")


def settle_squared_error(prediction: Tensor, gamma: Constant, target: Tensor) -> Tensor:
    """Return (γ p + y)/(γ + 1), the best output under ½‖y − ĥ‖² + γ‖ĥ − p‖²/2.

    With γ = 1/(α n) it is (p + α n y)/(1 + α n).
    """
    return prediction + (target - prediction) / (1.0 + gamma)


def settle_cross_entropy(prediction: Tensor, gamma: Constant, target: Tensor) -> Tensor:
    """Return the root of γ (ĥ − p) = y − Σy · softmax(ĥ), the best output under the cross-entropy.

    The problem is strongly convex, so there is one root: that of
    :func:`~nlsim.systems.inference.closed_form.cross_entropy_target`, at any size of the logits. Two Newton steps from
    there change its value by roundings only; they are what a derivative is taken through. Each costs O(classes): the
    Hessian is diag(γ + s) − s sᵀ/Σ.

    Parameters
    ----------
    prediction, target : Tensor
        p and y ≥ 0, shape ``(..., sample, class)``.
    gamma : float or Tensor
        γ > 0, shape ``(..., sample, 1)``.

    Notes
    -----
    Cost: about a thousand small operations. A ``free`` output comes to rest at the same place and needs none of them.
    """
    weight = target.sum(-1, keepdim=True)
    with torch.no_grad():
        output = cross_entropy_target(prediction, 1.0 / gamma, target)
    for _ in range(2):
        s = weight * torch.softmax(output, -1)
        residual = target - s - gamma * (output - prediction)
        # (D − s sᵀ/w)⁻¹ r by Sherman and Morrison; 1 − Σ s²/(w D) = γ Σ s/(w D) without cancellation
        inverse = 1.0 / (gamma + s)
        part = inverse * residual
        denominator = (gamma * s * inverse).sum(-1, keepdim=True)
        output = output + part + s * inverse * ((s * part).sum(-1, keepdim=True) / denominator)
    return output


def heuristic_target(prediction: Tensor, gamma: Constant, target: Tensor) -> Tensor:
    """Return p + (y − softmax p)/(1 + γ): probabilities in the place of outputs.

    It is the closed form of the squared error read in the space of probabilities, O(1/γ) off in relative terms.
    """
    return prediction + (target - torch.softmax(prediction, -1)) / (1.0 + gamma)


Settle = Callable[[Tensor, Constant, Tensor], Tensor]
"""``settle(p, γ, y) -> ĥ_L``."""

_SETTLED: dict[str, Settle] = {
    SQUARED_ERROR.name: settle_squared_error,
    CROSS_ENTROPY.name: settle_cross_entropy,
}


def settle_rule(output: str, loss: Loss) -> Settle:
    """Return how the output follows from its prediction, for the outputs that are no part of the state."""
    if output == "settled":
        return _SETTLED[loss.name]
    if output == "heuristic":
        return heuristic_target
    return lambda prediction, gamma, target: target
