"""The schema of inference learning: precisions, couplings, and the jumps of the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nlsim.scenario.networks import Layers
from nlsim.scenario.value import Count, Model, NonNegative, Positive

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class ConstantPrecision(Model):
    """γ_l given by hand."""

    name: Literal["constant"]
    """Which rule."""
    gamma: Positive | Annotated[list[Positive], Field(min_length=1)] = 1.0
    """γ, one number, or one a layer; the last is that of the output."""


class StepPrecision(Model):
    """γ_l = 1/(α (n_l + ε)): inference and a normalised update make a step of size α."""

    name: Literal["step"]
    """Which rule."""
    rate: Positive
    """α, the size of the implicit step."""
    kind: Literal["exact", "self_consistent", "feedforward", "equal"] = "exact"
    """Which normalisers n_l, and whether the energy is differentiated by them; only exact is implicit SGD."""
    epsilon: NonNegative = 0.0
    """ε, added to every normaliser."""


Precision = Annotated[ConstantPrecision | StepPrecision, Field(discriminator="name")]


class Gains(Model):
    """Couplings given by hand in the place of those of the precisions."""

    top: NonNegative
    """Weight of a layer's own error [1/time]."""
    bottom: NonNegative
    """Weight of the feedback from the layer above [1/time]."""
    decay: NonNegative = 0.0
    """Weight of the decay of the activities [1/time]."""


class LeastMeanSquares(Model):
    """W_l ← W_l + η mean(γ_l e_l ã_{l−1}ᵀ)."""

    name: Literal["lms"]
    """Which update."""
    rate: Positive
    """η."""


class NormalisedLeastMeanSquares(Model):
    """W_l ← W_l + μ mean(e_l ã_{l−1}ᵀ)/(mean(n_l) + ε)."""

    name: Literal["nlms"]
    """Which update."""
    rate: Positive = 1.0
    """μ; 1 makes the new network reproduce the settled activities of a single sample."""
    epsilon: NonNegative = 0.0
    """ε, added to the normaliser."""


class Adam(Model):
    """torch's Adam along the gradient of the free energy, or along the normalised direction."""

    name: Literal["adam"]
    """Which update."""
    rate: Positive = 1e-3
    """Learning rate."""
    beta1: Share = 0.9
    """Memory of the first moment."""
    beta2: Share = 0.999
    """Memory of the second moment."""
    epsilon: Positive = 1e-8
    """Added to the root of the second moment."""
    is_normalised: bool = False
    """Whether the direction is divided by the normaliser of its layer."""
    normaliser_epsilon: NonNegative = 0.0
    """ε, added to the normaliser."""


class MeanSizeUpdate(Model):
    """Least mean squares with a rate for each weight that shrinks with the mean size of its gradient (MQ)."""

    name: Literal["mean_size"]
    """Which update."""
    rate: Positive
    """Learning rate."""
    floor: Positive = 1e-6
    """The least that a rate is divided by."""
    memory: Share = 0.9999
    """Memory of the mean size."""


Update = Annotated[LeastMeanSquares | NormalisedLeastMeanSquares | Adam | MeanSizeUpdate, Field(discriminator="name")]


class InferenceLearning(Model):
    """Predictive coding: activities descend a free energy while a sample is held, then the weights jump."""

    name: Literal["inference"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    precision: Precision = ConstantPrecision(name="constant")
    """How prediction errors are weighted."""
    output: Literal["clamped", "free", "settled", "heuristic"] = "clamped"
    """Output held at the target, pulled to it, at the best compromise in closed form, or a softmax heuristic."""
    update: Update
    """How the weights jump at the end of an interval."""
    is_scaled: bool = False
    """Whether the flow is divided by γ_l; its stiffness then does not depend on the size of the step."""
    decay: Annotated[list[NonNegative], Field(default_factory=list)]
    """d_l of each hidden layer [1/time]; empty for none."""
    gains: Gains | None = None
    """Couplings by hand; without it they follow from the precisions."""


class IncrementalLearning(Model):
    """Incremental inference learning: activities and weights descend the same free energy at the same time."""

    name: Literal["incremental_inference"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    precision: Precision = ConstantPrecision(name="constant")
    """How prediction errors are weighted."""
    output: Literal["clamped", "free", "settled"] = "clamped"
    """Output held at the target, pulled to it, or at the best compromise in closed form."""
    rate: Positive
    """η, how fast weights move against activities [1/time]."""
    restarts: bool = True
    """Whether the activities of the next sample begin at its forward pass."""


class SequentialLearning(Model):
    """Sequential inference: a few sweeps from output to input when a sample ends, then the weights jump."""

    name: Literal["sequential_inference"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    update: Update
    """How the weights jump."""
    step: Positive = 0.05
    """Step γ of the first sweep; that of sweep t is γ/(1 + t)."""
    sweeps: Count = 3
    """Sweeps for each batch."""
    strength: Positive = 100.0
    """β: the output is held at β/(1 + β) of the target and 1/(1 + β) of the prediction."""
    is_cooling: bool = True
    """Whether later sweeps take smaller steps."""


class GradientDescent(Model):
    """W ← W − η mean ∂L/∂W."""

    name: Literal["sgd"]
    """Which rule."""
    rate: Positive
    """η."""


class BackpropagationSteps(Model):
    """Backpropagation: one step of gradient descent or Adam on each batch, when it ends."""

    name: Literal["backpropagation"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    descent: Annotated[GradientDescent | Adam, Field(discriminator="name")]
    """How a gradient becomes a step."""


class BackpropagationProximal(Model):
    """BP-prox: the output target and the normalised update of an implicit step, with backpropagation in between."""

    name: Literal["backpropagation_proximal"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    rate: Positive
    """α, the size of the step."""
    epsilon: NonNegative = 0.0
    """ε, added to every normaliser."""


class ErrorFormLearning(Model):
    """Predictive coding in its errors (ePC): they descend the free energy as coordinates, then the weights jump."""

    name: Literal["error_form"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    precision: ConstantPrecision = ConstantPrecision(name="constant")
    """How prediction errors are weighted; in these coordinates by numbers only."""
    output: Literal["clamped", "free", "settled"] = "clamped"
    """Output held at the target, pulled to it, or at the best compromise in closed form."""
    update: Update
    """How the weights jump at the end of an interval."""


class FixedPredictionLearning(Model):
    """Predictive coding with predictions and slopes of the forward pass: at rest, backpropagation's gradients."""

    name: Literal["fixed_prediction"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    descent: Annotated[GradientDescent | Adam, Field(discriminator="name")]
    """How a gradient becomes a step."""


class ZeroDivergence(Model):
    """Z-IL: activity steps of length 1 inside each jump, every layer learning when the output error passes."""

    name: Literal["zero_divergence"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    descent: Annotated[GradientDescent | Adam, Field(discriminator="name")]
    """How a gradient becomes a step."""


class ImplicitSGD(Model):
    """Implicit SGD: the proximal step of each batch, solved to round-off when it ends; for small networks."""

    name: Literal["implicit_sgd"]
    """Which system."""
    network: Layers
    """What learns; its output_activation must be identity."""
    rate: Positive
    """α, the size of the step."""
