"""The schema of what moves: learning systems, controlled systems, and the flip of their sign."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlsim.scenario.inference import (
    BackpropagationProximal,
    BackpropagationSteps,
    ErrorFormLearning,
    FixedPredictionLearning,
    ImplicitSGD,
    IncrementalLearning,
    InferenceLearning,
    SequentialLearning,
    ZeroDivergence,
)
from nlsim.scenario.masked import Responder
from nlsim.scenario.networks import Layers, Network
from nlsim.scenario.value import ActivationName, Count, Finite, Matrix, Model, NonNegative, Positive, Vector


class PeriodicFlip(Model):
    """s(t) = (−1)^⌊(t + offset)/half_period⌋: forward and backward in turns."""

    name: Literal["periodic"]
    """Which flip."""
    half_period: Positive
    """Length of a stretch of one sign, n·dt to flip every n steps [time]."""
    offset: NonNegative = 0.0
    """How far into the first stretch the run begins, less than half_period [time]."""


class TrackBall(Model):
    """s = +1 where |y|² + |p|² ≤ radius², over the whole state with its costates, and −1 outside."""

    name: Literal["track_ball"]
    """Which flip."""
    radius: Positive
    """R."""


Flip = Annotated[PeriodicFlip | TrackBall, Field(discriminator="name")]


class Learning(Model):
    """What both systems of states and costates have in common."""

    network: Network
    """What learns."""
    speed: Positive | Annotated[list[Positive], Field(min_length=1)]
    """Propagation speed c, one number, or one per layer (of a graph: per neuron) [1/time]."""
    mass: Positive = 1.0
    """Inertia m of the weights."""
    dissipation: NonNegative = 0.0
    """θ = φ̇/φ [1/time]."""
    regularisation: NonNegative = 0.0
    """Weight k of the regulariser |W|²/2."""


class CostateReversal(Learning):
    """Hamiltonian learning with the costates run forward; becomes backpropagation as speed → ∞."""

    name: Literal["costate_reversal"]
    """Which system."""


class HamiltonEquations(Learning):
    """The exact Hamilton equations as an initial-value problem; blows up at about rate c (a control)."""

    name: Literal["hamilton_equations"]
    """Which system."""
    flip: Flip | None = None
    """Multiply the whole field by a sign that changes; without it the field runs one way."""


class HeavyBall(Model):
    """Gradient flow with inertia: the limit of infinite speed. Under a sweep stepper it is SGD with momentum."""

    name: Literal["heavy_ball"]
    """Which system."""
    network: Network
    """What learns."""
    mass: Positive = 1.0
    """Inertia m of the weights."""
    dissipation: NonNegative = 0.0
    """θ [1/time]."""
    regularisation: NonNegative = 0.0
    """Weight k of the regulariser |W|²/2."""


class HamiltonianLearning(Model):
    """Hamiltonian Learning (Melacci et al.), state and costate reset sample by sample.

    With form "output" or "state" under ordered_euler with dt = interval = τ, speed = 1/τ and φ = 1/τ it is SGD with
    learning rate βτ and momentum 1 − τη. (Dampening needs another φ in the first step, which Python offers.)
    """

    name: Literal["hamiltonian_learning"]
    """Which system."""
    network: Layers
    """What learns."""
    form: Literal["output", "state", "layers"] = "state"
    """Nothing is a state and the network is passed in no time; its output is a state; or every layer is one."""
    beta: Positive
    """β, the rate at which weights follow their costates."""
    eta: NonNegative
    """η, dissipation of the weights' costates [1/time]."""
    phi: Positive = 1.0
    """φ, weight of the loss."""
    speed: Positive
    """c of every part of the state [1/time]."""
    regularisation: NonNegative = 0.0
    """Weight k of the regulariser |W|²/2."""


class LinearQuadratic(Model):
    """Control of dx/dt = A x + B v: least ∫ [½ (x − z)ᵀ Q (x − z) + ½ vᵀ R v] e^{ηt} dt, z being the target.

    The exact Hamilton equations from costates 0, as an initial-value problem; they run away without a flip.
    """

    name: Literal["linear_quadratic"]
    """Which system."""
    drift: Matrix
    """A, the rows of a square matrix [1/time]."""
    control: Matrix
    """B, one row for each row of A."""
    tracking_weight: Matrix
    """Q, of the shape of A, symmetric, no eigenvalue negative."""
    control_weight: Matrix
    """R, one row for each column of B, symmetric, all eigenvalues positive."""
    dissipation: Finite = 0.0
    """η, positive when later times weigh more [1/time]."""
    start: Vector
    """x(0), one number for each row of A."""
    is_reversed: bool = False
    """Whether the costates run forward (costate-only reversal) in place of the exact equations."""
    flip: Flip | None = None
    """Multiply the whole field by a sign that changes; not together with is_reversed."""


class Tracking(Model):
    """A network without inputs whose first neurons follow the target by moving all of its weights.

    Least ∫ [q/2 |x_out − z|² + r/2 |dW/dt|² + r_w |W|²] e^{θt} dt; x(0) and W(0) are uniform in ±1, drawn from
    the seed, and costates begin at 0.
    """

    name: Literal["tracking"]
    """Which system."""
    neurons: Annotated[int, Field(ge=1, le=4096)] = 5
    """Neurons; each has an arc to every one, itself included."""
    outputs: Count = 1
    """How many of the first neurons follow the target."""
    tracking_weight: NonNegative
    """q, the cost of being off the target."""
    control_weight: Positive = 0.1
    """r = m c, the cost of moving the weights."""
    regularisation: NonNegative = 1.0
    """r_w, the cost of |W|², without a factor ½."""
    speed: Positive = 1.0
    """Propagation speed c of every neuron [1/time]."""
    dissipation: NonNegative = 0.0
    """θ [1/time]."""
    activation: ActivationName = "tanh"
    """Activation of every neuron."""
    is_reversed: bool = False
    """Whether the costates run forward (costate-only reversal) in place of the exact equations."""
    flip: Flip | None = None
    """Multiply the whole field by a sign that changes; not together with is_reversed."""


Learner = (
    CostateReversal
    | HamiltonEquations
    | HeavyBall
    | HamiltonianLearning
    | InferenceLearning
    | IncrementalLearning
    | SequentialLearning
    | BackpropagationSteps
    | BackpropagationProximal
    | ErrorFormLearning
    | FixedPredictionLearning
    | ZeroDivergence
    | ImplicitSGD
)
"""Systems that learn with a network."""

Follower = LinearQuadratic | Tracking
"""Systems that follow a target."""

System = Annotated[Learner | Follower | Responder, Field(discriminator="name")]
