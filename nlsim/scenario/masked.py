"""The schema of systems that respond to masked inputs and do not learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlsim.scenario.value import ActivationName, Count, Finite, Matrix, Model, NonNegative, Positive, Vector

_Neurons = Annotated[int, Field(ge=1, le=4096)]


class _Population(Model):
    """What both populations of neurons have in common."""

    inputs: Count
    """p, the number of inputs."""
    neurons: _Neurons
    """Neurons, all of which see all inputs."""
    activation: ActivationName = "tanh"
    """Activation of every neuron."""
    weight_scale: Positive = 1.0
    """Input weights W are uniform with standard deviation weight_scale/√inputs, drawn from the seed."""
    bias: Finite | Vector = 1.0
    """b, the bias that inputs share and take away when they are missing: one number, or one per neuron."""
    recurrent_norm: NonNegative = 0.0
    """‖V‖₂, the largest singular value of the recurrent weights, which are drawn from the seed; 0 for none."""
    speed: Positive = 1.0
    """c of every neuron [1/time]."""


class MaskedNeuron(_Population):
    """Leaky neurons dx/dt = c (−x + φ(W(m ⊙ u) + μ(m) b + (1 − μ(m)) w_c + V x + d)) behind the mask m."""

    name: Literal["masked_neuron"]
    """Which system."""
    form: Literal["state", "potential"] = "state"
    """Whether the state is the output x of a neuron, or its potential v with output φ(v)."""
    outage: Literal["forget", "hold"] = "forget"
    """What neurons do that see nothing: relax to neutral, or (the field being multiplied by μ) stand still."""
    is_symmetric: bool = False
    """Whether the recurrent weights are symmetric."""
    intrinsic: Finite | Vector = 0.0
    """d, a bias that no mask touches: one number, or one per neuron. Other than 0, nothing is neutral."""
    compensation: Finite | Vector = 0.0
    """w_c, what neurons are driven by where nothing is seen: one number, or one per neuron."""


class MaskedEnergy(_Population):
    """Neurons that descend the energy ½|s|² − ½ ϱ(s)ᵀ V ϱ(s) − ϱ(s)ᵀ (W(m ⊙ u) + μ(m) b), V being symmetric.

    They start from s = 0. relu is refused: its slope there is 0, so that nothing would ever move.
    """

    name: Literal["masked_energy"]
    """Which system."""
    nudge: Annotated[float, Field(gt=-1, le=1e18, allow_inf_nan=False)] = 0.0
    """β: adds β ½|s_o − z|² to the energy, o being the last neurons, one for each class of the samples; 0 leaves them
    free."""


class NeuMiss(Model):
    """The flow dh/dt = c (−h + m ⊙ (S h) + m ⊙ (x − x̄)), S = I − Σ, which rests at a Gaussian's conditional mean."""

    name: Literal["neumiss"]
    """Which system."""
    inputs: Count
    """p, the number of inputs."""
    covariance: Matrix | None = None
    """Σ, one row for each input, symmetric, all eigenvalues positive; left out: that of the training inputs, of which
    rows with missing values are passed over."""
    mean: Finite | Vector | None = None
    """x̄, one number or one per input; left out: that of the training inputs, or 0 beside a covariance."""
    ridge: NonNegative = 0.0
    """Added to the diagonal of Σ, so that it is positive definite."""
    speed: Positive = 1.0
    """c of every unit [1/time]."""


Responder = MaskedNeuron | MaskedEnergy | NeuMiss
"""Systems that respond to an input and do not learn."""
