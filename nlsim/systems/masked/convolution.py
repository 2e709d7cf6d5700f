"""A convolution with missing inputs, to be dropped into an ordinary network in place of ``torch.nn.Conv2d``.

Each output sees a window of |K| = C_in k_h k_w inputs, and its bias is scaled by the observed fraction of that
window: a = K ∗ (m ⊙ x) + b (1 ∗ m)/|K|. What lies outside of the image has to be called something, and both
answers are in use, so there is no default:

* ``"observed"``: padding is a known zero. A complete image gives what the ordinary convolution gives.
* ``"missing"``: padding is not known. At the border of a complete image the bias is scaled too: a 3×3 window has
  4/9 of it in a corner and 6/9 at an edge.
"""

from __future__ import annotations

from typing import Literal, final, get_args

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from nlsim.errors import NlsimError, unknown_name
from nlsim.systems.masked.layer import as_number, observed, select, select_into
from nlsim.systems.masked.module import check_mask, is_known_complete
from nlsim.systems.masked.window import (
    PaddingCountsAs,
    Pair,
    border_of,
    is_whole,
    pair,
    spoken_by_one,
    window_fraction,
)


@final
class MaskedConv2d(torch.nn.Module):
    """a = K ∗ (m ⊙ x) + μ b with μ the observed fraction of each window; compensated, + (1 − μ) w_c.

    On a CPU a batch of which no window misses anything gives bit for bit what ``torch.nn.Conv2d`` gives, in value and
    in every gradient; elsewhere, and beside incomplete windows, the bias is added after the sum and not with it.

    Parameters
    ----------
    in_channels, out_channels : int
        C_in and the number of kernels.
    kernel_size, stride, padding, dilation : int or (int, int)
        As for ``torch.nn.Conv2d``; padding, with zeros, may also be ``"valid"`` (none) or ``"same"`` (as large an
        output as the input; stride 1 only).
    groups : int
        Into how many groups inputs and outputs fall, each output seeing the channels of its group only, so that
        p = C_in k_h k_w/groups. Divides both numbers of channels.
    bias : bool
        Whether there is a bias b.
    padding_mode : {"zeros"}
        As for ``torch.nn.Conv2d``, whose other modes are refused: they copy values, and would have to copy the mask.
    padding_counts_as : {"observed", "missing"}
        What the padding is; see the module's text.
    is_compensated : bool
        Whether there is a trainable compensatory weight w_c for each kernel, 0 at the start.
    device, dtype : optional
        As for ``torch.nn.Conv2d``.

    Attributes
    ----------
    weight : Parameter
        K, shape ``(out_channels, in_channels / groups, height, width)``.
    bias, compensation : Parameter or None
        b and w_c, shape ``(out_channels,)``.

    Raises
    ------
    UnknownNameError
        For another word about the padding.
    NlsimError
        For sizes below 1 (padding below 0), groups that do not divide the channels, ``"same"`` with a stride, and
        other padding modes.

    References
    ----------
    Derived here from the neutralizers of Kia et al., 2022, arXiv:2206.01640, with p = |K|; it is the fraction μ times
    the partial convolution of Liu et al., 2018, arXiv:1804.07723.
    """

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter | None
    compensation: torch.nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | Literal["same", "valid"] = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        padding_counts_as: PaddingCountsAs,
        is_compensated: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        policies = get_args(PaddingCountsAs)
        if padding_counts_as not in policies:
            raise unknown_name("way to count padding", padding_counts_as, policies, "padding_counts_as")
        if padding_mode != "zeros":
            raise NlsimError(
                "Padding copies nothing: it is zeros, which are observed or missing.",
                where="padding_mode",
                given=padding_mode,
                allowed="zeros",
                advice="Pad values and mask alike with torch.nn.functional.pad, and give padding=0.",
            )
        if groups < 1 or in_channels < 1 or out_channels < 1 or in_channels % groups or out_channels % groups:
            raise NlsimError(
                "Channels fall into groups of equal size.",
                where="groups",
                given=f"{groups}, of {in_channels} and {out_channels} channels",
                allowed="a divisor of both numbers of channels, all of them ≥ 1",
            )
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride, self.dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
        self.padding: Pair | Literal["same", "valid"]
        if not isinstance(padding, str):
            self.padding = pair("padding", padding, 0)
        elif padding not in ("same", "valid"):
            raise unknown_name("padding", padding, ("same", "valid"), "padding")
        else:
            self.padding = padding
        if self.padding == "same" and self.stride != (1, 1):
            raise NlsimError(
                "With a stride the output is smaller than the input.",
                where="padding",
                given=f"'same' with a stride of {self.stride}",
                allowed="'same' with a stride of 1, 'valid', or numbers",
            )
        dense = torch.nn.Conv2d(
            in_channels, out_channels, self.kernel_size, groups=groups, bias=bias, device=device, dtype=dtype
        )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.padding_counts_as = padding_counts_as
        self.weight = torch.nn.Parameter(dense.weight)
        self.register_parameter("bias", None if dense.bias is None else torch.nn.Parameter(dense.bias))
        level = torch.nn.Parameter(dense.weight.new_zeros(out_channels)) if is_compensated else None
        self.register_parameter("compensation", level)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return a, shape ``(sample, out_channels, height, width)``; of one image ``(out_channels, height, width)``.

        Parameters
        ----------
        values : Tensor
            x, shape ``(sample, in_channels, height, width)`` or ``(in_channels, height, width)``; missing slots may
            hold anything.
        mask : Tensor, optional
            m, 1 where observed, of a shape that broadcasts to it: ``(sample, 1, height, width)`` for pixels of
            which all channels are missing at once. By default what is NaN is missing.

        Raises
        ------
        NlsimError
            For values or a mask of another shape, and for an image smaller than a window.
        """
        return self.with_fraction(values, mask)[0]

    def with_fraction(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return a and the observed fraction of each window, which broadcasts to it.

        Its shape is ``(sample, 1, height, width)``, and that of a where channels in several groups have masks of
        their own; without the first axis for one image. Masks of channels in groups are counted once where they are
        known to be all the same: a depthwise convolution otherwise costs the counting of each.
        """
        self.check(values)
        if mask is not None:
            check_mask(mask, values)
        if values.ndim == 3:
            made, fraction = self.with_fraction(values[None], mask)
            return made[0], fraction[0]
        is_complete = mask is None and is_known_complete(values)
        if is_complete:
            number = values.new_ones(1, 1, 1)
        else:
            number = observed(values) if mask is None else as_number(mask, values.dtype)
        counted = spoken_by_one(number) if self.groups > 1 else number
        channels = 1 if counted.ndim < 3 else counted.shape[-3]
        fraction = window_fraction(
            counted.expand(1 if is_complete else values.shape[0], channels, *values.shape[-2:]),
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            padding_counts_as=self.padding_counts_as,
        )
        if fraction.shape[1] > 1:
            fraction = fraction.repeat_interleave(self.out_channels // self.groups, 1)
        if is_complete:
            gated, fraction = values, fraction.expand(len(values), -1, -1, -1)
        elif mask is not None and mask.is_floating_point():
            gated = select(values, number) * number
        else:
            gated = select_into(values, number)
        if self.bias is None or is_whole(fraction):
            made = self.convolved(gated, self.bias)
        else:
            made = self.convolved(gated, None)
            # autocast convolves in fewer bits than the bias has
            made = torch.addcmul(made, fraction.to(made.dtype), self.bias[:, None, None].to(made.dtype))
        if self.compensation is not None:
            level = self.compensation[:, None, None].to(made.dtype)
            made = torch.addcmul(made, (1.0 - fraction).to(made.dtype), level)
        return made, fraction

    def convolved(self, gated: Tensor, bias: Tensor | None) -> Tensor:
        """Return K ∗ g + b as ``torch.nn.Conv2d`` does."""
        rows, columns = border_of(self.padding, self.kernel_size, self.dilation)
        more = rows[1] - rows[0], columns[1] - columns[0]
        if any(more):
            gated = pad(gated, (0, more[1], 0, more[0]))
        return conv2d(gated, self.weight, bias, self.stride, (rows[0], columns[0]), self.dilation, self.groups)

    def check(self, values: Tensor) -> None:
        """Refuse values that are no images of these channels, or smaller than a window."""
        if values.ndim not in (3, 4) or values.shape[-3] != self.in_channels:
            raise NlsimError(
                "Images have channels, rows and columns.",
                where="values",
                given=f"shape {tuple(values.shape)}",
                allowed=f"([sample,] {self.in_channels}, height, width)",
            )
        border = border_of(self.padding, self.kernel_size, self.dilation)
        padded = tuple(n + sum(more) for n, more in zip(values.shape[-2:], border, strict=True))
        window = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))
        if any(n < k for n, k in zip(padded, window, strict=True)):
            raise NlsimError(
                "The image is smaller than a window.",
                where="values",
                given=f"{padded[0]} × {padded[1]} with its padding",
                allowed=f"{window[0]} × {window[1]} or more",
            )

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
            f"padding_counts_as={self.padding_counts_as!r}, "
            f"bias={self.bias is not None}, is_compensated={self.compensation is not None}"
        )
