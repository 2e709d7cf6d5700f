"""N7: post-activation states; the field is a gradient at held precisions, and only unit precisions are right."""

from __future__ import annotations

import pytest
import torch
from support.compare import assert_round_off
from support.learning import draw, make_weights
from support.oracle import PLAIN_ACTIVATION
from support.settling import linear_output, near_target

from nlsim.errors import CapabilityError, UnknownNameError
from nlsim.systems.inference.post_activation import INVERSES, PostActivationFlow
from nlsim.systems.loss import SQUARED_ERROR

each_kind = pytest.mark.parametrize("kind", ["unit", "layer"])


def case(activation="tanh", kind="unit", samples=2, alpha=0.7):
    network = linear_output(activation=activation)
    weights = tuple(0.7 * w for w in make_weights(network))
    inputs = near_target(network, weights, samples)
    flow = PostActivationFlow(network, SQUARED_ERROR, weights, alpha, kind)
    hidden = tuple(h + 0.05 * draw(7 + k, *h.shape) for k, h in enumerate(flow.begin(inputs.input)))
    return flow, hidden, inputs


@each_kind
@pytest.mark.parametrize("activation", ["tanh", "softplus", "logistic"])
def test_the_field_is_minus_the_gradient_at_held_precisions(kind, activation):
    flow, hidden, inputs = case(activation, kind)
    *_, gammas = flow.settling(hidden, inputs)
    own = [h.clone().requires_grad_() for h in hidden]
    source, total = inputs.input, 0.0
    for layer, w in enumerate(flow.weights):
        p = torch.cat((source, torch.ones_like(source[:, :1])), -1) @ w.T
        # the precisions by their definition
        n = source.detach().square().sum(-1, keepdim=True) + 1
        q = p.detach().clone().requires_grad_()
        value = PLAIN_ACTIVATION[flow.network.activations[layer].name]
        (slope,) = torch.autograd.grad(value(q).sum(), q)
        gamma = 1 / (0.7 * n * (slope**2 if kind == "unit" else torch.ones_like(slope)))
        assert_round_off(gammas[layer], gamma, 100)
        # the output minimises ½‖y − ĥ‖² + γ‖ĥ − p‖²/2
        held = (gamma * p + inputs.target).detach() / (gamma + 1) if layer == 2 else own[layer]
        total = total + 0.5 * (gamma * (held - value(p)).square()).sum()
        source = held
    expected = tuple(-g for g in torch.autograd.grad(total, own))
    assert_round_off(flow.vector_field(0.0, hidden, inputs), expected, 500)


@pytest.mark.parametrize("activation", INVERSES)
def test_inverses(activation):
    x = draw(3, 200, low=-3.0, high=3.0)
    y = PLAIN_ACTIVATION[activation](x)
    # φ⁻¹ magnifies a rounding of y by 1/φ', up to 100 at 3
    assert_round_off(INVERSES[activation](y), x, 200)


def test_layer_precisions_update_along_the_local_gradient():
    flow, hidden, inputs = case(kind="layer", samples=1)
    sources, made, _, errors, _ = flow.settling(hidden, inputs)
    new = flow.update(hidden, inputs)
    for layer, (w, a, p, e) in enumerate(zip(flow.weights, sources, made, errors, strict=True)):
        tilde = torch.cat((a[0], torch.ones(1, dtype=torch.float64)))
        slope = 1 - torch.tanh(p[0]) ** 2 if layer < 2 else torch.ones_like(p[0])
        assert_round_off(new[layer], w + torch.outer(slope * e[0], tilde) / (tilde @ tilde), 100)


@each_kind
def test_only_unit_precisions_realise_activities(kind):
    flow, hidden, inputs = case(kind=kind, samples=1)
    made = flow.network.forward(flow.update(hidden, inputs), inputs.input)[:-1]
    gap = max(float((m - h).abs().max()) for m, h in zip(made, hidden, strict=True))
    if kind == "unit":
        assert gap <= 1e-13
    else:
        assert gap >= 1e-3


def test_refusals():
    network = linear_output(activation="relu")
    with pytest.raises(CapabilityError, match="inverse"):
        PostActivationFlow(network, SQUARED_ERROR, make_weights(network), 1.0)
    network = linear_output()
    with pytest.raises(UnknownNameError):
        PostActivationFlow(network, SQUARED_ERROR, make_weights(network), 1.0, "neuron")
