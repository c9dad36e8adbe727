"""Spleeter's published models: what tells them apart. No torch here, so that asking is quick."""

from dataclasses import dataclass

NUM_CONVOLUTIONS = 7
"""In each U-Net; a checkpoint numbers them through all its U-Nets."""


@dataclass(frozen=True)
class ModelKind:
    """What differs between Spleeter's models.

    Attributes:
        stems: in the order in which their U-Nets lie in the checkpoint.
        activation: of encoder and decoder, `relu` (leaky in the encoder) or `elu`.
        softmax: whether the U-Nets give shares that compete, not masks of their own.
    """

    stems: tuple[str, ...]
    activation: str
    softmax: bool = False


KINDS = {
    "2stems": ModelKind(("vocals", "accompaniment"), "relu"),
    "4stems": ModelKind(("vocals", "drums", "bass", "other"), "elu"),
    "5stems": ModelKind(("vocals", "piano", "drums", "bass", "other"), "elu", softmax=True),
}
