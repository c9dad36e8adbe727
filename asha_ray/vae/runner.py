"""A decoder rewritten for inference: the same function, cheaper.

Every rewriting is exact in real numbers, and changes float32 results in their last bits only:

- a transposed convolution of stride 1 is a convolution with flipped, exchanged weights;
- one of stride 2 with few outputs is a 2×2 convolution to the four pixels of each block (sub-pixel
  convolution: Shi et al., 2016, arXiv:1609.05158), which vectorises where three channels do not;
- on CPUs a convolution, its bias and its ReLU are one oneDNN primitive with weights laid out once.

Shapes: b pictures, c channels, h and w of a map.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from asha_ray.vae.architecture import AnyDecoder
from asha_ray.vae.numerics import DTYPES
from asha_ray.values import Numerics

FEW_CHANNELS = 8
"""Below this many outputs a doubling is done by sub-pixel convolution."""


def inference_form(decoder: AnyDecoder, numerics: Numerics) -> Callable[[Tensor], Tensor]:
    """A function from latents `[b, L]` float32 to logits `[b, 3, H, W]`; the decoder is used up.

    Args:
        decoder: on the CPU, in float32.
        numerics: dtype, device, layout and compilation.
    """
    layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
    dtype = DTYPES[numerics.dtype]
    layers = nn.Sequential(_Begin(dtype, layout), *_rewritten(decoder.layers))
    decoder.layers = layers.eval().requires_grad_(requires_grad=False)
    # The dense layer stays in float32: latents move by less than a bfloat16 step from frame to
    # frame, and rounding them would make slow motion stand still and jump.
    decoder.to(numerics.device)
    decoder.layers.to(dtype)
    decoder.layers.to(memory_format=layout)  # type: ignore[call-overload]
    if numerics.device == "cpu" and numerics.channels_last and _has_fused_primitives():
        _fuse(decoder, numerics)
    if numerics.compile != "none":
        return torch.compile(decoder.logits, mode=numerics.compile)
    return decoder.logits


def _fuse(decoder: AnyDecoder, numerics: Numerics) -> None:
    """Put primitives in place of layers, where this CPU has them for the number format."""
    plain = decoder.layers
    decoder.layers = nn.Sequential(*_fused(copy.deepcopy(plain)))
    latents = torch.zeros(numerics.batch_size, decoder.dense.in_features)
    try:
        with torch.inference_mode():  # lays out the weights, before several threads come
            decoder.logits(latents)
    except RuntimeError:
        decoder.layers = plain


def _rewritten(layers: nn.Sequential) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d) and layer.stride == (1, 1):
            yield _as_convolution(layer)
        elif _is_doubling(layer) and layer.out_channels < FEW_CHANNELS:
            yield _Subpixel(layer)
        else:
            yield layer


def _is_doubling(layer: nn.Module) -> TypeGuard[nn.ConvTranspose2d]:
    return (
        isinstance(layer, nn.ConvTranspose2d)
        and layer.stride == (2, 2)
        and layer.kernel_size == (3, 3)
        and layer.padding == layer.output_padding == (1, 1)
        and layer.groups == 1
    )


def _as_convolution(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    """Stride 1: `out[y] = Σ in[y + p - k] w[k]` is a convolution with the kernel reversed."""
    reach = tuple(
        side - 1 - pad for side, pad in zip(layer.kernel_size, _pair(layer.padding), strict=True)
    )
    convolution = nn.Conv2d(
        layer.in_channels, layer.out_channels, _pair(layer.kernel_size), padding=_pair(reach)
    )
    convolution.weight = nn.Parameter(layer.weight.flip(2, 3).transpose(0, 1).contiguous())
    convolution.bias = layer.bias
    return convolution


class _Subpixel(nn.Module):
    """Doubling by a 2×2 convolution to `[b, (c, 2, 2), h, w]`, then blocks laid out as pixels.

    An even output pixel sees one input pixel, through the kernel's middle; an odd one sees two.
    """

    TAPS = ((0, 0, 1), (1, 0, 2), (1, 1, 0))
    """Parity of the output, offset of the input, index in the transposed kernel."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        count = layer.out_channels
        weight = torch.zeros(count, 2, 2, layer.in_channels, 2, 2)
        for odd_y, y, from_y in self.TAPS:
            for odd_x, x, from_x in self.TAPS:
                weight[:, odd_y, odd_x, :, y, x] = layer.weight[:, :, from_y, from_x].T
        self.blocks: nn.Module = nn.Conv2d(layer.in_channels, 4 * count, 2)
        self.blocks.weight = nn.Parameter(weight.reshape(4 * count, layer.in_channels, 2, 2))
        bias = torch.zeros(count) if layer.bias is None else layer.bias
        self.blocks.bias = nn.Parameter(bias.repeat_interleave(4))

    def forward(self, maps: Tensor) -> Tensor:
        blocks: Tensor = self.blocks(functional.pad(maps, (0, 1, 0, 1)))
        return to_pixels(blocks)


def to_pixels(blocks: Tensor) -> Tensor:
    """Maps `[b, c, 2 h, 2 w]` of blocks `[b, (c, 2, 2), h, w]`, as `pixel_shuffle`."""
    if blocks.element_size() != 2 or not blocks.is_contiguous(memory_format=torch.channels_last):
        return functional.pixel_shuffle(blocks, 2)
    # Two neighbours of 16 bits move as one of 32, several times as fast.
    num, channels, height, width = blocks.shape
    pairs = blocks.permute(0, 2, 3, 1).view(torch.int32)
    pairs = pairs.view(num, height, width, channels // 4, 2).permute(0, 3, 1, 4, 2).contiguous()
    return pairs.view(blocks.dtype).view(num, channels // 4, 2 * height, 2 * width)


class _Begin(nn.Module):
    """The dense layer's maps in the number format and layout of the rest."""

    def __init__(self, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self._dtype, self._layout = dtype, layout

    def forward(self, maps: Tensor) -> Tensor:
        return maps.to(self._dtype).contiguous(memory_format=self._layout)


class _FusedConvolution(nn.Module):
    """A (transposed) convolution, its bias and perhaps its ReLU as one oneDNN primitive.

    The first maps that it sees decide how the weights are laid out.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, *, relu: bool) -> None:
        super().__init__()
        shape = [list(_pair(part)) for part in (layer.stride, layer.dilation)]
        padding, extra = list(_pair(layer.padding)), list(_pair(layer.output_padding))
        self._transposed = isinstance(layer, nn.ConvTranspose2d)
        self._places = (padding, extra, *shape, 1) if self._transposed else (padding, *shape, 1)
        self._activation = "relu" if relu else "none"
        self._weight, self._bias = layer.weight.detach(), layer.bias
        self._laid_out = False

    def forward(self, maps: Tensor) -> Tensor:
        primitives = torch.ops.mkldnn
        kind = "_convolution_transpose" if self._transposed else "_convolution"
        if not self._laid_out:
            reorder = getattr(primitives, f"_reorder{kind}_weight")
            self._weight = reorder(self._weight, *self._places, list(maps.shape))
            self._laid_out = True
        run = getattr(primitives, f"{kind}_pointwise")
        result: Tensor = run(
            maps, self._weight, self._bias, *self._places, self._activation, [], ""
        )
        return result


def _fused(layers: nn.Sequential) -> Iterator[nn.Module]:
    pending = list(layers)
    while pending:
        layer = pending.pop(0)
        if isinstance(layer, _Subpixel) and _can_fuse(layer.blocks):
            layer.blocks = _FusedConvolution(layer.blocks, relu=False)
        if not _can_fuse(layer):
            yield layer
            continue
        relu = bool(pending) and isinstance(pending[0], nn.ReLU)
        if relu:
            pending.pop(0)
        yield _FusedConvolution(layer, relu=relu)


def _can_fuse(layer: nn.Module) -> TypeGuard[nn.Conv2d | nn.ConvTranspose2d]:
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and (
        layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


def _has_fused_primitives() -> bool:
    """Whether this build of torch has them: they are its compiler's, and not documented."""
    names = (
        "_convolution_pointwise",
        "_convolution_transpose_pointwise",
        "_reorder_convolution_weight",
        "_reorder_convolution_transpose_weight",
    )
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
