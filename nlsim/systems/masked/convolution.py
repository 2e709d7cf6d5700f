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

from nlsim.errors import unknown_name
from nlsim.systems.masked.layer import as_number, observed, select, select_into
from nlsim.systems.masked.module import check_mask

PaddingCountsAs = Literal["observed", "missing"]


def window_fraction(
    number: Tensor,
    kernel_size: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    padding_counts_as: PaddingCountsAs,
) -> Tensor:
    """Return the observed fraction of each window, shape ``(sample, 1, height, width)``.

    Parameters
    ----------
    number : Tensor
        m in floating point, shape ``(sample, channel, height, width)``; one channel may speak for all.
    kernel_size, stride, padding, dilation : (int, int)
        As for ``torch.nn.functional.conv2d``.
    padding_counts_as : {"observed", "missing"}
        What the padding is.
    """
    channels = number.shape[1]
    count = number.sum(1, keepdim=True)  # of whole numbers, so a complete window has exactly 1
    if padding_counts_as == "observed" and padding != (0, 0):
        rows, columns = padding
        count, padding = pad(count, (columns, columns, rows, rows), value=float(channels)), (0, 0)
    ones = count.new_ones(1, 1, *kernel_size)
    return conv2d(count, ones, None, stride, padding, dilation) / (channels * kernel_size[0] * kernel_size[1])


@final
class MaskedConv2d(torch.nn.Module):
    """a = K ∗ (m ⊙ x) + μ b with μ the observed fraction of each window; compensated, + (1 − μ) w_c.

    Parameters
    ----------
    in_channels, out_channels : int
        C_in and the number of kernels.
    kernel_size, stride, padding, dilation : int or (int, int)
        As for ``torch.nn.Conv2d``; padding is with zeros.
    bias : bool
        Whether there is a bias b.
    padding_counts_as : {"observed", "missing"}
        What the padding is; see the module's text.
    is_compensated : bool
        Whether there is a trainable compensatory weight w_c for each kernel, 0 at the start.
    device, dtype : optional
        As for ``torch.nn.Conv2d``.

    Attributes
    ----------
    weight : Parameter
        K, shape ``(out_channels, in_channels, height, width)``.
    bias, compensation : Parameter or None
        b and w_c, shape ``(out_channels,)``.

    Raises
    ------
    UnknownNameError
        For another word about the padding.

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
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
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
        self.kernel_size, self.stride, self.padding, self.dilation = (
            (each, each) if isinstance(each, int) else each for each in (kernel_size, stride, padding, dilation)
        )
        dense = torch.nn.Conv2d(in_channels, out_channels, self.kernel_size, bias=bias, device=device, dtype=dtype)
        self.padding_counts_as = padding_counts_as
        self.weight = torch.nn.Parameter(dense.weight)
        self.register_parameter("bias", None if dense.bias is None else torch.nn.Parameter(dense.bias))
        level = torch.nn.Parameter(dense.weight.new_zeros(out_channels)) if is_compensated else None
        self.register_parameter("compensation", level)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return a, shape ``(sample, out_channels, height, width)``.

        Parameters
        ----------
        values : Tensor
            x, shape ``(sample, in_channels, height, width)``; missing slots may hold anything.
        mask : Tensor, optional
            m, 1 where observed, of a shape that broadcasts to it: ``(sample, 1, height, width)`` for pixels of
            which all channels are missing at once. By default what is NaN is missing.
        """
        if mask is not None:
            check_mask(mask, values)
        return self.with_fraction(values, mask)[0]

    def with_fraction(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return a and the observed fraction of each window, shape ``(sample, 1, height, width)``."""
        number = observed(values) if mask is None else as_number(mask, values.dtype)
        channels = 1 if number.ndim < 3 else number.shape[-3]
        fraction = window_fraction(
            number.expand(values.shape[0], channels, *values.shape[-2:]),
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            padding_counts_as=self.padding_counts_as,
        )
        is_soft = mask is not None and mask.is_floating_point()
        gated = select(values, number) * number if is_soft else select_into(values, number)
        made = conv2d(gated, self.weight, None, self.stride, self.padding, self.dilation)
        if self.bias is not None:
            made = torch.addcmul(made, fraction, self.bias[:, None, None])
        if self.compensation is not None:
            made = torch.addcmul(made, 1.0 - fraction, self.compensation[:, None, None])
        return made, fraction

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the brackets."""
        outputs, inputs = self.weight.shape[:2]
        return (
            f"{inputs}, {outputs}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, padding_counts_as={self.padding_counts_as!r}, "
            f"bias={self.bias is not None}, is_compensated={self.compensation is not None}"
        )
