"""Linear systems in the activities of a flow, solved without forming a matrix.

For (s I − J) δ = f, with J = ∂f/∂ĥ and s ≥ 0 for each sample, this module has three parts: products J v, a
preconditioner that is a backward and a forward pass through the net, and a Krylov method, batched over samples, in
which each sample stops on its own.

**The preconditioner.** With errors δe_l = δ_l − W_l φ' δ_{l−1} the linearised flow of the hidden layers is a product of
two bidiagonal matrices and what is left over,

    −J = U E + d + (curvature of the output) + (terms of φ'' and of moving precisions),
    E = 1 − [W_l φ'_{l−1}] below the diagonal,    U = a − [b_l φ'_l W_{l+1}ᵀ] above it,

so U⁻¹ is one pass from the output down and E⁻¹ one pass up. In a linear net what is left over at s = d = 0 has the rank
of the output layer: the method ends after one product more than there are outputs, however wide and deep the net is,
where the diagonal alone leaves it with the conditioning of the whole Hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.systems.inference.energy import Layers
from nlsim.systems.inference.flow import ActivityFlow

Map = Callable[[Layers], Layers]
"""A linear map of the activities."""

WINDOW = 60
"""Directions kept before the method starts afresh; each takes as much memory as two copies of the activities."""

FALL = 0.8
"""Where the residual of a sample fell by less than this factor, its next direction is not made of the residual."""


@dataclass(frozen=True, eq=False)
class LinearSolution:
    """What a Krylov method found.

    Attributes
    ----------
    solution : tuple of Tensor
        δ, shape ``(..., sample, layer)`` each.
    residual : Tensor
        ‖right − A δ‖/‖right‖ of each sample by the method's own recurrence, shape ``(..., sample)``.
    is_solved : Tensor
        Whether that is within the tolerance, for each sample.
    products : int
        Products made, all samples together being one.
    """

    solution: Layers
    residual: Tensor
    is_solved: Tensor
    products: int


def jacobian_product(field: Callable[..., Layers], at: Layers) -> Map:
    """Return v -> J v for J = ∂field/∂ĥ at a point, each sample on its own.

    The pull-back u -> Jᵀ u is linear, and pulling v back through it gives J v: exact, for any activation and rule for
    precisions. Cost: a product is two matrix products a layer, like the field; nothing of the size of W is kept.
    """
    with torch.enable_grad():
        point = tuple(h.detach().requires_grad_() for h in at)
        rates = field(*point)
        seeds = tuple(torch.zeros_like(rate).requires_grad_() for rate in rates)
        pulled = torch.autograd.grad(rates, point, seeds, create_graph=True, materialize_grads=True)

    def product(v: Layers) -> Layers:
        return torch.autograd.grad(pulled, seeds, v, retain_graph=True, materialize_grads=True)

    return product


def two_passes(flow: ActivityFlow, at: Layers, inputs: Inputs, shift: Tensor) -> Map:
    """Return r -> E⁻¹ U⁻¹ r with s + d added to the diagonals, an approximate solution of (s I − J) δ = r.

    ``shift`` is s of each sample, shape ``(..., sample)``. Cost: two matrix products a layer.
    """
    seen = flow.settling(at, inputs)
    network, weights, depth = flow.network, flow.weights, flow.network.depth
    slopes = [
        sigma.slope(h, source)
        for sigma, h, source in zip(network.activations, at[: depth - 1], seen.predictions.source[1:], strict=False)
    ]
    shifts = shift.unsqueeze(-1)
    couplings = [flow.couplings(layer, seen.precisions, seen.normalisers) for layer in range(depth - 1)]
    owns = [own for own, _, _, _ in couplings]
    sizes = [own + shifts if d is None else own + d + shifts for own, _, _, d in couplings]
    if flow.output == "free":
        owns.append(1.0 if flow.is_scaled else seen.precisions[-1])
        sizes.append(owns[-1] + shifts)

    def apply(right: Layers) -> Layers:
        down = [right[-1] / sizes[-1]]
        for layer in reversed(range(len(right) - 1)):
            pull = couplings[layer][1] * slopes[layer] * network.pull_back(weights[layer + 1], down[0])
            down.insert(0, (right[layer] + pull) / sizes[layer])
        up = [down[0]]
        for layer in range(1, len(right)):
            w = weights[layer][..., :-1] if network.has_bias else weights[layer]
            up.append(down[layer] + owns[layer] / sizes[layer] * ((slopes[layer - 1] * up[-1]) @ w.mT))
        return tuple(up)

    return apply


def solve_each(
    product: Map, right: Layers, precondition: Map, tolerance: Tensor, *, max_products: int = 300
) -> LinearSolution:
    """Return δ with ‖right − A δ‖ ≤ tolerance ‖right‖, each sample by a Krylov space of its own.

    Every product adds a direction; A times the directions is kept orthonormal, so the residual of a sample is the
    smallest in its space and never grows. The next direction is made of the residual as long as that falls, else of
    the last of these vectors, so the method does not break down where A is indefinite.

    Parameters
    ----------
    product : callable
        v -> A v; no sample may see another.
    right : tuple of Tensor
        Shape ``(..., sample, layer)`` each.
    precondition : callable
        An approximate inverse of A, applied from the right: the residual is that of A itself.
    tolerance : Tensor
        Relative, one a sample, shape ``(..., sample)``.
    max_products : int
        Products at most.

    Returns
    -------
    LinearSolution
        Always; which samples were solved is part of it. A sample that is solved does not move any more.

    Notes
    -----
    Cost: a product, a preconditioning, and two passes over at most :data:`WINDOW` directions each time; one read by
    the host a product.

    References
    ----------
    Eisenstat, Elman and Schultz, *Variational iterative methods for nonsymmetric systems of linear equations*, SIAM J.
    Numer. Anal. 20(2), 1983. Jiránek and Rozložník, *Adaptive version of simpler GMRES*, Numer. Algorithms 53, 2010.
    """
    widths = [each.shape[-1] for each in right]

    def split(flat: Tensor) -> Layers:
        return torch.split(flat, widths, -1)

    residual = torch.cat(right, -1)
    solution = torch.zeros_like(residual)
    size = torch.linalg.vector_norm(residual, dim=-1)
    limit, missed, base = tolerance * size, size, residual
    directions: list[Tensor] = []
    images: list[Tensor] = []
    count = 0
    while count < max_products and not bool((missed <= limit).all()):
        direction = torch.cat(precondition(split(base)), -1)
        image = torch.cat(product(split(direction)), -1)
        count += 1
        if len(images) == WINDOW:
            directions, images = [], []
        for past, seen in zip(directions, images, strict=True):
            share = (image * seen).sum(-1, keepdim=True)
            image, direction = image - share * seen, direction - share * past
        length = torch.linalg.vector_norm(image, dim=-1, keepdim=True)
        scale = torch.where(length > 0, 1 / length, torch.zeros_like(length))
        image, direction = image * scale, direction * scale
        gain = torch.where(missed <= limit, torch.zeros_like(missed), (residual * image).sum(-1)).unsqueeze(-1)
        solution, residual = solution + gain * direction, residual - gain * image
        directions.append(direction)
        images.append(image)
        before, missed = missed, torch.linalg.vector_norm(residual, dim=-1)
        falls = (missed <= FALL * before) | (len(images) == WINDOW)
        base = torch.where(falls.unsqueeze(-1), residual, image)
    left = torch.where(size > 0, missed / size, torch.zeros_like(size))
    return LinearSolution(split(solution), left, missed <= limit, count)
