"""State-space networks: a state network ĥ = f̂(u, h, θ^h) and an output network y = f^y(u, h, θ^y)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nlsim.core.system import Inputs
from nlsim.errors import NlsimError
from nlsim.systems.backprop import required_input, required_target
from nlsim.systems.hamiltonian.transition import (
    LayeredTransition,
    Passed,
    Tensors,
    Transition,
    WholeTransition,
    join,
    pass_through,
)
from nlsim.systems.loss import Loss
from nlsim.systems.network import LayeredNetwork


@dataclass(frozen=True)
class Readout:
    """The output network y = f^y, passed in no time.

    Parameters
    ----------
    network : LayeredNetwork
        Its input is u followed by the last part of h, or one of the two.
    reads_input : bool
        Whether it reads u; it must where there is no state.
    """

    network: LayeredNetwork
    reads_input: bool = False


@dataclass(frozen=True)
class Scored:
    """The loss of an output and its derivatives.

    Attributes
    ----------
    output : Tensor
        y, shape ``(..., sample, output)``.
    activity_gradient : Tensor or None
        ∂L/∂h of the last part of h; None without a state.
    weight_gradient : tuple of Tensor
        ∂L/∂θ^y, summed over samples.
    """

    output: Tensor
    activity_gradient: Tensor | None
    weight_gradient: Tensors


@dataclass(frozen=True)
class StateSpaceNetwork:
    """A network with a state: ĥ = f̂(u, h, θ^h), y = f^y(u, h, θ^y) (Melacci et al., eq. 3–4).

    The weights θ are those of the state network, layer by layer, followed by those of the output network.

    Parameters
    ----------
    transition : Transition or None
        f̂; None: there is no state.
    readout : Readout or None
        f^y; None: the output is the last part of the state.

    Raises
    ------
    NlsimError
        When both are missing, or their widths do not fit.
    """

    transition: Transition | None
    readout: Readout | None

    def __post_init__(self) -> None:
        if self.readout is None:
            if self.transition is None:
                raise NlsimError(
                    "A state-space network needs a transition, a readout, or both.",
                    where="StateSpaceNetwork",
                    advice="Give output_form(network) or state_form(network).",
                )
            return
        if self.transition is None and not self.readout.reads_input:
            raise NlsimError(
                "Without a state the readout must read the input.",
                where="StateSpaceNetwork.readout.reads_input",
                given=False,
                allowed="True",
            )
        if self.transition is not None:
            needed = self.transition.widths[-1] + self.readout.reads_input * self.transition.input_width
            if self.readout.network.widths[0] != needed:
                raise NlsimError(
                    "The readout's first width does not fit what it reads.",
                    where="StateSpaceNetwork.readout.network.widths",
                    given=self.readout.network.widths[0],
                    allowed=f"{needed}: the last part of the state{', and u' if self.readout.reads_input else ''}",
                )

    @property
    def networks(self) -> tuple[LayeredNetwork, ...]:
        """Return the networks whose layers have weights, in the order of the weights."""
        return tuple(each.network for each in (self.transition, self.readout) if each is not None)

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the number of neurons of each part of the state."""
        return () if self.transition is None else self.transition.widths

    def split(self, weights: Tensors) -> tuple[Tensors, Tensors]:
        """Return θ^h and θ^y."""
        count = 0 if self.transition is None else self.transition.network.depth
        return weights[:count], weights[count:]

    def propose(self, weights: Tensors, inputs: Inputs, activity: Tensors) -> Passed:
        """Return f̂(u, h, θ^h) with its pull-back to h and θ^h; empty without a state."""
        if self.transition is None:
            return Passed((), lambda _: (), lambda _: ())
        return self.transition.propose(self.split(weights)[0], required_input(inputs), activity)

    def read(self, weights: Tensors, inputs: Inputs, activity: Tensors) -> Tensor:
        """Return y."""
        if self.readout is None:
            return activity[-1]
        return self._read(weights, inputs, activity).value[0]

    def score(self, weights: Tensors, inputs: Inputs, activity: Tensors, loss: Loss) -> Scored:
        """Return y and the derivatives of L(y, ŷ) with respect to h and θ^y."""
        if self.readout is None:
            return Scored(activity[-1], loss.gradient(activity[-1], required_target(inputs)), ())
        passed = self._read(weights, inputs, activity)
        (output,) = passed.value
        cotangents = (loss.gradient(output, required_target(inputs)),)
        gradients = passed.to_weight(cotangents)
        if self.transition is None:
            return Scored(output, None, gradients)
        (pulled,) = passed.to_activity(cotangents)
        return Scored(output, pulled[..., pulled.shape[-1] - self.transition.widths[-1] :], gradients)

    def _read(self, weights: Tensors, inputs: Inputs, activity: Tensors) -> Passed:
        assert self.readout is not None
        own = self.split(weights)[1]
        if self.transition is None:
            return pass_through(self.readout.network, own, required_input(inputs))
        source = join(required_input(inputs), activity[-1]) if self.readout.reads_input else activity[-1]
        return pass_through(self.readout.network, own, source)


def output_form(network: LayeredNetwork) -> StateSpaceNetwork:
    """Return a network without a state: it is the output network, passed in no time."""
    return StateSpaceNetwork(None, Readout(network, reads_input=True))


def state_form(network: LayeredNetwork) -> StateSpaceNetwork:
    """Return a network whose output is the state, its hidden layers being passed in no time."""
    return StateSpaceNetwork(WholeTransition(network, has_memory=False), None)


def layered_form(network: LayeredNetwork) -> StateSpaceNetwork:
    """Return a network whose layers are the parts of the state: the neurons of Betti & Gori, eq. 7."""
    return StateSpaceNetwork(LayeredTransition(network), None)


def split_form(network: LayeredNetwork, at: int) -> StateSpaceNetwork:
    """Return a network whose first ``at`` layers make the state and whose other layers are the output network.

    Raises
    ------
    NlsimError
        Unless 1 ≤ at < depth.
    """
    if not 1 <= at < network.depth:
        raise NlsimError(
            "Both parts of a split network need a layer.",
            where="split_form(at=)",
            given=at,
            allowed=f"1 to {network.depth - 1}",
        )
    first = LayeredNetwork(network.widths[: at + 1], network.activations[:at], network.has_bias)
    second = LayeredNetwork(network.widths[at:], network.activations[at:], network.has_bias)
    return StateSpaceNetwork(WholeTransition(first, has_memory=False), Readout(second))


FORMS: dict[str, Callable[[LayeredNetwork], StateSpaceNetwork]] = {
    "output": output_form,
    "state": state_form,
    "layers": layered_form,
}
"""What of a layered network is state: nothing, its output, or every layer."""
