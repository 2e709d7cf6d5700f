"""A dense layer with missing inputs, to be dropped into an ordinary network in place of ``torch.nn.Linear``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import linear

from nlsim.errors import NlsimError
from nlsim.systems.masked.check import check_values
from nlsim.systems.masked.layer import affine, gate_and_count, is_transformed
from nlsim.systems.masked.shares import check_shares


def is_known_complete(values: Tensor) -> bool:
    """Whether it is cheap to know, and true, that nothing is NaN.

    One pass that only reads: NaN anywhere makes the sum NaN. Never true on an accelerator, which would have to be
    waited for, nor while a function is being traced or transformed; a sum of infinities of both signs is not true
    either. Where the answer is no the layer goes the long way and finds the same bits.
    """
    if values.device.type != "cpu" or torch.compiler.is_compiling() or is_transformed():
        return False
    total = values.detach().sum().item()
    return total == total


def check_mask(mask: object, values: Tensor) -> None:
    """Refuse a mask that is no tensor, whose shape does not broadcast to that of the values, or that leaves [0, 1].

    The numbers of a mask that is not boolean are looked at in one pass, on a CPU only: on an accelerator it would
    have to be waited for, and while a function is traced or transformed they are not there. A layer of 64 inputs and
    64 neurons takes a quarter longer for it at batch 64 (1.20 to 1.28 of its time without, in float32 on one core), one
    of 784 inputs and 256 neurons an eighth to a fifth; a boolean mask costs nothing that can be measured.

    Raises
    ------
    NlsimError
        Saying which.
    """
    if not isinstance(mask, Tensor):
        raise NlsimError(
            "A mask is a tensor.",
            where="mask",
            given=type(mask).__name__,
            allowed="torch.Tensor: boolean, integer 0 and 1, or floating in [0, 1]",
            advice="Use torch.as_tensor(mask).",
        )
    shape, whole = mask.shape, values.shape
    if shape != whole and not (
        len(shape) <= len(whole) and all(m in (1, v) for m, v in zip(reversed(shape), reversed(whole), strict=False))
    ):
        raise NlsimError(
            "The mask does not fit the values.",
            where="mask",
            given=f"shape {tuple(shape)}, for values of shape {tuple(whole)}",
            allowed="the shape of the values, or one that broadcasts to it",
        )
    if mask.dtype == torch.bool:
        return
    if mask.device.type == "cpu" and not (torch.compiler.is_compiling() or is_transformed()):
        check_values(mask)


@final
class MaskedLinear(torch.nn.Module):
    """a = W(m ⊙ x) + μ(m) b, with μ the observed fraction; compensated, + (1 − μ) w_c.

    A complete input in row-major memory gives bit for bit what ``torch.nn.Linear`` gives, in value and in every
    gradient, also in a batch beside incomplete rows; in another layout products may be summed in another order.
    Weights start as those of ``torch.nn.Linear`` from the same generator, and its ``state_dict`` can be loaded
    (``strict=False`` where there is a compensatory weight, or are shares, to keep).

    Parameters
    ----------
    in_features, out_features : int
        p and the number of neurons.
    bias : bool
        Whether there is a bias b. Without one, and without w_c, the layer is zero imputation.
    is_compensated : bool
        Whether there is a trainable compensatory weight w_c for each neuron (mPROMISSING), 0 at the start: what a
        neuron says of an input of which nothing is known. It learns from incomplete samples only.
    shares : Tensor, optional
        π, shape ``(in_features,)``, ≥ 0 with sum 1: how much of the bias each input carries; 1/p by default. See
        :func:`~nlsim.systems.masked.shares.group_shares`. A buffer, saved with the weights: they mean little without.
        Weights that were saved without are refused (missing key ``shares``); ``load_state_dict(…, strict=False)``
        then keeps the shares given here.
    device, dtype : optional
        As for ``torch.nn.Linear``.

    Attributes
    ----------
    weight : Parameter
        W, shape ``(out_features, in_features)``.
    bias : Parameter or None
        b, shape ``(out_features,)``.
    compensation : Parameter or None
        w_c, shape ``(out_features,)``.

    Raises
    ------
    NlsimError
        For shares that are not, given or loaded.

    References
    ----------
    Kia et al., 2022, arXiv:2206.01640 (eq. 3 and 5 in the numbering of a public re-implementation).

    Examples
    --------
    >>> layer = MaskedLinear(3, 2)
    >>> layer(torch.tensor([[float("nan")] * 3])).tolist()
    [[0.0, 0.0]]
    """

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter | None
    compensation: torch.nn.Parameter | None
    shares: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        is_compensated: bool = False,
        shares: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1:
            raise NlsimError(
                "A share of the bias belongs to an input.", where="in_features", given=in_features, allowed="≥ 1"
            )
        dense = torch.nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        self.in_features, self.out_features = in_features, out_features
        self.weight = torch.nn.Parameter(dense.weight)
        self.register_parameter("bias", None if dense.bias is None else torch.nn.Parameter(dense.bias))
        level = torch.nn.Parameter(dense.weight.new_zeros(out_features)) if is_compensated else None
        self.register_parameter("compensation", level)
        if shares is not None:
            check_shares(shares, in_features)
            shares = shares.detach().to(dense.weight)
        self.register_buffer("shares", shares)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return a, shape ``(..., out_features)``.

        Parameters
        ----------
        values : Tensor
            x, shape ``(..., in_features)``; missing slots may hold anything.
        mask : Tensor, optional
            m, 1 where observed, of a shape that broadcasts to it; boolean, integer (0 and 1), or floating in
            [0, 1]. By default what is NaN is missing.
        """
        if mask is None and self.compensation is None and is_known_complete(values):
            return linear(values, self.weight, self.bias)
        return self.with_fraction(values, mask)[0]

    def with_fraction(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return a and the observed fraction μ, shape ``(..., 1)``, which a layer above may go on with.

        Raises
        ------
        NlsimError
            For a mask that is none, by :func:`check_mask`.
        """
        if mask is not None:
            check_mask(mask, values)
        gated, fraction = gate_and_count(values, mask, self.shares)
        return affine(gated, fraction, self.weight, self.bias, self.compensation), fraction

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Refuse shares that are none before anything of this layer is copied.

        Shares that were not saved, or that this layer has no place for, are missing and unexpected keys as usual.
        """
        saved = state_dict.get(prefix + "shares")
        if saved is not None and self.shares is not None:
            check_shares(saved, self.in_features)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"is_compensated={self.compensation is not None}, has_shares={self.shares is not None}"
        )
