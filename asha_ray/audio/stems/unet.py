"""Spleeter's U-Net in torch, with the weights of its TensorFlow checkpoints.

Shape legend: b patches, t 512 STFT frames, f 1024 frequency bins; spectrograms are
`[b, 2, t, f]`, one channel a side.

Source: A. Jansson et al., "Singing voice separation with deep U-Net convolutional networks", ISMIR
2017, in the form of Deezer's Spleeter (2.4.2): one network for each stem, 5×5 kernels, stride 2,
six levels. Where TensorFlow and torch differ, TensorFlow's meaning is kept: "same" padding of
strided convolutions falls behind, batch normalisation has an epsilon of 1e-3.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from asha_ray.audio.stems.kinds import KINDS, NUM_CONVOLUTIONS, ModelKind
from asha_ray.audio.stems.tf_checkpoint import Checkpoint
from asha_ray.errors import StemsError

NUM_FILTERS = (16, 32, 64, 128, 256, 512)
NORM_EPSILON = 1e-3
MASK_EPSILON = 1e-10
NUM_NORMS, NUM_TRANSPOSED = 12, 6
"""Layers of each kind in one U-Net; a checkpoint numbers them through all its U-Nets."""


class UNet(nn.Module):
    """One stem's network: magnitudes `[b, 2, t, f]` -> logits of its mask `[b, 2, t, f]`."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self._elu = activation == "elu"
        down, up = (2, *NUM_FILTERS), (*NUM_FILTERS[-2::-1], 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(num_in, num_out, 5, stride=2) for num_in, num_out in pairwise(down)
        )
        # The deepest level's normalisation and activation lead nowhere in Spleeter.
        self.norms = nn.ModuleList(_norm(num) for num in NUM_FILTERS[:-1])
        widths = (NUM_FILTERS[-1], *(2 * num for num in up[:-1]))
        self.transposed = nn.ModuleList(
            nn.ConvTranspose2d(num_in, num_out, 5, stride=2, padding=1)
            for num_in, num_out in zip(widths, up, strict=True)
        )
        self.up_norms = nn.ModuleList(_norm(num) for num in up)
        self.last = nn.Conv2d(1, 2, 4, dilation=2, padding=3)

    def forward(self, magnitudes: torch.Tensor) -> torch.Tensor:
        """Logits of a stem's mask."""
        skips = []
        current = magnitudes
        for level, convolution in enumerate(self.convolutions):
            current = convolution(functional.pad(current, (1, 2, 1, 2)))
            if level < len(self.norms):
                skips.append(current)
                current = self._activate(self.norms[level](current), slope=0.2)
        for transposed, norm in zip(self.transposed, self.up_norms, strict=True):
            current = norm(self._activate(transposed(current)[..., :-1, :-1], slope=0.0))
            if skips:
                current = torch.cat([skips.pop(), current], dim=1)
        logits: torch.Tensor = self.last(current)
        return logits

    def _activate(self, values: torch.Tensor, slope: float) -> torch.Tensor:
        if self._elu:
            return functional.elu(values, inplace=True)
        return functional.leaky_relu(values, slope, inplace=True)


class MaskModel(nn.Module):
    """All U-Nets of a model: magnitudes `[b, 2, t, f]` -> masks `[stems, b, 2, t, f]`."""

    def __init__(self, kind: ModelKind) -> None:
        super().__init__()
        self.kind = kind
        self.networks = nn.ModuleList(UNet(kind.activation) for _ in kind.stems)

    def forward(self, magnitudes: torch.Tensor) -> torch.Tensor:
        """Each stem's share of the sound, in all 1 (to within the epsilon) where it sounds."""
        logits = torch.stack([network(magnitudes) for network in self.networks])
        shares = logits.softmax(dim=0) if self.kind.softmax else logits.sigmoid()
        power = (shares * magnitudes).square()
        return (power + MASK_EPSILON / len(power)) / (power.sum(dim=0) + MASK_EPSILON)


def load_mask_model(checkpoint: Checkpoint, name: str) -> MaskModel:
    """The networks of `2stems`, `4stems` or `5stems`, with a checkpoint's weights.

    Raises:
        StemsError: if the checkpoint is damaged, or another model's.
    """
    kind = KINDS[name]
    with torch.device("meta"):  # no weights are drawn only to be replaced
        model = MaskModel(kind)
    last = NUM_CONVOLUTIONS * len(kind.stems)
    if f"conv2d_{last}/kernel" in checkpoint.entries:
        raise StemsError(
            f"loading the Spleeter model {name}: the files hold one of more stems; name it with "
            "--stems-model"
        )
    expected = model.state_dict()
    state: dict[str, torch.Tensor] = {}
    for index in range(len(kind.stems)):
        for target, sources in _variables(index).items():
            for leaf, source in sources.items():
                key = f"networks.{index}.{target}.{leaf}"
                state[key] = _tensor(checkpoint, source)
                # One by one: all variables of a hostile index may claim the same many bytes.
                if state[key].shape != expected[key].shape:
                    raise StemsError(
                        f"loading the Spleeter model {name}: {key} is {tuple(state[key].shape)} in "
                        f"the files, not {tuple(expected[key].shape)}: they are of another model"
                    )
    for key in expected:
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def _norm(num_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(num_channels, eps=NORM_EPSILON)


def _variables(index: int) -> Mapping[str, Mapping[str, str]]:
    """Modules of the U-Net `index` -> their tensors' names in a checkpoint."""
    found: dict[str, dict[str, str]] = {}
    depth = len(NUM_FILTERS)
    for number in range(NUM_CONVOLUTIONS):
        target = "last" if number == depth else f"convolutions.{number}"
        found[target] = _weights(_numbered("conv2d", NUM_CONVOLUTIONS * index + number))
    for number in range(NUM_TRANSPOSED):
        source = _numbered("conv2d_transpose", NUM_TRANSPOSED * index + number)
        found[f"transposed.{number}"] = _weights(source)
    for number in range(NUM_NORMS):
        target = f"norms.{number}" if number < depth else f"up_norms.{number - depth}"
        if number != depth - 1:
            source = _numbered("batch_normalization", NUM_NORMS * index + number)
            found[target] = {
                "weight": f"{source}/gamma",
                "bias": f"{source}/beta",
                "running_mean": f"{source}/moving_mean",
                "running_var": f"{source}/moving_variance",
            }
    return found


def _weights(source: str) -> dict[str, str]:
    return {"weight": f"{source}/kernel", "bias": f"{source}/bias"}


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    values = checkpoint.read(name)
    if values.dtype != np.float32:
        raise StemsError(f"loading a Spleeter model: {name} is {values.dtype}, not float32")
    if name.endswith("/kernel"):
        if values.ndim != 4:
            raise StemsError(
                f"loading a Spleeter model: {name} has {values.ndim} dimensions, not 4"
            )
        # [height, width, in, out] -> [out, in, height, width]; transposed: in and out swapped, too
        values = values.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.array(values, np.float32, order="C"))
