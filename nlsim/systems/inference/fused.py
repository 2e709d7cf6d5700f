"""Explicit Euler steps of settling activities with buffers reused: what a run spends its time in.

All hidden layers lie in one buffer, so an elementwise pass is one call however deep the network is, and a step
allocates nothing. The results are those of the vector field up to round-off, which a law test demands.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nlsim.systems.network import LayeredNetwork


@dataclass(frozen=True)
class Buffers:
    """Hidden layers side by side: whole buffers, and a view ``(sample, layer)`` of each for every layer.

    Attributes
    ----------
    whole : dict of Tensor
        One flat tensor for each quantity: activity, source, error, pull, and the part of the prediction that stays:
        p_1, and the biases above.
    part : dict of list of Tensor
        Its views, one a hidden layer.
    """

    whole: dict[str, Tensor]
    part: dict[str, list[Tensor]]


NAMES = ("activity", "source", "offset", "error", "pull")


def make_buffers(moving: Sequence[Tensor]) -> Buffers:
    """Return buffers for hidden activities, which are copied in."""
    sizes, shapes = [h.numel() for h in moving], [h.shape for h in moving]
    whole = {name: moving[0].new_empty(sum(sizes)) for name in NAMES}
    part = {
        name: [flat.view(shape) for flat, shape in zip(torch.split(buffer, sizes), shapes, strict=True)]
        for name, buffer in whole.items()
    }
    for own, given in zip(part["activity"], moving, strict=True):
        own.copy_(given)
    return Buffers(whole, part)


class FusedSteps:
    """Explicit Euler steps of the activities of one held mini-batch, for an output that is no part of the state.

    Parameters
    ----------
    network : LayeredNetwork
        At least one hidden layer.
    weights : sequence of Tensor
        W_l without ensemble axes.
    moving : sequence of Tensor
        ĥ_1 … ĥ_{L−1}, kept intact.
    first : Tensor
        p_1.
    target : Tensor
        y.
    """

    def __init__(
        self,
        network: LayeredNetwork,
        weights: Sequence[Tensor],
        moving: Sequence[Tensor],
        first: Tensor,
        target: Tensor,
    ) -> None:
        bias = int(network.has_bias)
        self.buffers = make_buffers(moving)
        self.matrices = [w[:, :-1] if bias else w for w in weights[1:]]
        self.bias = bias
        offsets = [(w[:, -1] if bias else w.new_zeros(len(w))) for w in weights[1:]]
        for own, value in zip(self.buffers.part["offset"], [first, *offsets], strict=False):
            own.copy_(value)
        self.goal = target - offsets[-1]
        self.top = torch.empty_like(target)
        self.errors = [*self.buffers.part["error"], self.top]
        hidden = network.activations[:-1]
        part, whole = self.buffers.part, self.buffers.whole
        layers = zip(part["activity"], part["source"], part["pull"], strict=True)
        everything = [(whole["activity"], whole["source"], whole["pull"])]
        # one pass over all layers when they have one activation function
        self.passes = list(zip(hidden, everything if len(set(hidden)) == 1 else layers, strict=False))
        # what lies above the first hidden layer, whose error feeds nothing
        first_size = part["activity"][0].numel()
        self.above = {name: flat[first_size:] for name, flat in whole.items()}

    def look_(self) -> None:
        """Compute sources, the errors of the hidden layers above the first, and y − p_L."""
        sources = self.buffers.part["source"]
        for sigma, (activity, source, _) in self.passes:
            sigma.write(activity, source)
        torch.sub(self.above["activity"], self.above["offset"], out=self.above["error"])
        self.top.copy_(self.goal)
        for matrix, source, error in zip(self.matrices, sources, self.errors[1:], strict=True):
            error.addmm_(source, matrix.T, alpha=-1.0)

    def move_(self, dt: float, own: Sequence[float]) -> None:
        """Add dt (φ' ⊙ pull − a e), where ``pull`` is multiplied by φ' in place."""
        part = self.buffers.part
        for sigma, (activity, source, pull) in self.passes:
            sigma.pull_(pull, activity, source)
        part["activity"][0].lerp_(part["offset"][0], dt * own[0])
        if len(set(own[1:])) == 1:
            self.above["activity"].add_(self.above["error"], alpha=-dt * own[1])
        else:
            for rate, h, e in zip(own[1:], part["activity"][1:], self.errors[1:], strict=False):
                h.add_(e, alpha=-dt * rate)
        self.buffers.whole["activity"].add_(self.buffers.whole["pull"], alpha=dt)

    def constant(self, dt: float, steps: int, gammas: Sequence[float], *, is_scaled: bool) -> tuple[Tensor, ...]:
        """Return the activities after steps at precisions that are numbers, the output clamped."""
        pulls = self.buffers.part["pull"]
        own = [1.0 if is_scaled else gamma for gamma in gammas[:-1]]
        feed = [above / gamma if is_scaled else above for gamma, above in itertools.pairwise(gammas)]
        for _ in range(steps):
            self.look_()
            for layer, matrix in enumerate(self.matrices):
                pulls[layer].addmm_(self.errors[layer + 1], matrix, beta=0.0, alpha=feed[layer])
            self.move_(dt, own)
        return tuple(self.buffers.part["activity"])

    def normalised(
        self, dt: float, steps: int, rate: float, epsilon: float, first: Tensor, *, kind: str
    ) -> tuple[Tensor, ...]:
        """Return the activities after scaled steps at γ_l = 1/(α (n_l + ε)), the squared error's output settled.

        ``first`` is n_1 of the input, ``kind`` that of the precisions: exact, self_consistent or equal. The scaled flow
        has a_l = 1 and b_l = (n_l + ε)/(n_{l+1} + ε), and b_l = 1 where precisions are equal.
        """
        pulls, sources = self.buffers.part["pull"], self.buffers.part["source"]
        own = (1.0,) * len(pulls)
        offset = self.bias + epsilon
        sizes = [first + epsilon, *(torch.empty_like(first) for _ in self.matrices)]
        feed, strength = torch.empty_like(first), torch.empty_like(first)
        looked_at = len(sources) - 1 if kind == "equal" else 0  # equal precisions look at n_L alone
        # norms, not sums of squares: no temporary of the size of a layer
        for _ in range(steps):
            self.look_()
            for source, size in zip(sources[looked_at:], sizes[looked_at + 1 :], strict=True):
                torch.linalg.vector_norm(source, dim=-1, keepdim=True, out=size)
                size.square_().add_(offset)
            torch.mul(sizes[-1], rate, out=feed)
            self.top.mul_(feed.div_(feed + 1.0))
            for layer, matrix in enumerate(self.matrices):
                above = self.errors[layer + 1]
                torch.mm(above, matrix, out=pulls[layer])
                if kind == "exact":
                    torch.linalg.vector_norm(above, dim=-1, keepdim=True, out=strength)
                    strength.square_().div_(sizes[layer + 1])
                    pulls[layer].addcmul_(sources[layer], strength)
                if kind != "equal":
                    torch.div(sizes[layer], sizes[layer + 1], out=feed)
                    pulls[layer].mul_(feed)
            self.move_(dt, own)
        return tuple(self.buffers.part["activity"])
