"""Writes TensorFlow checkpoints: the reader's opposite, made from the format's description."""

import struct
from pathlib import Path

import numpy as np

from asha_ray.audio.stems.crc32c import crc32c, mask
from asha_ray.audio.stems.kinds import KINDS
from asha_ray.audio.stems.tf_checkpoint import TABLE_MAGIC

TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def varint(value: int) -> bytes:
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])


def block(entries: list[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """A table's block with its trailer; keys share their prefixes."""
    body, before = b"", b""
    for key, value in entries:
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value))
        body += key[shared:] + value
        before = key
    body += struct.pack("<II", 0, 1) + bytes([compression])
    return body + struct.pack("<I", mask(crc32c(body)))


def table(
    entries: list[tuple[bytes, bytes]], per_block: int = 40, compression: int = 0, repeat: int = 1
) -> bytes:
    """A whole index; `repeat` names every block more than once."""
    data, handles = b"", []
    for first in range(0, len(entries), per_block):
        part = entries[first : first + per_block]
        written = block(part, compression)
        handles.append((part[-1][0], varint(len(data)) + varint(len(written) - 5)))
        data += written
    places = []
    for part in ([], handles * repeat):
        written = block(part)
        places.append(varint(len(data)) + varint(len(written) - 5))
        data += written
    return data + b"".join(places).ljust(40, b"\0") + struct.pack("<Q", TABLE_MAGIC)


def entry(values: np.ndarray, start: int, **changes: int) -> bytes:
    """A BundleEntryProto; `changes` replace its numbers."""
    field = {"dtype": TYPES[str(values.dtype)], "shard": 0, "offset": start}
    field |= {"size": values.nbytes, "crc": mask(crc32c(values.tobytes()))} | changes
    dims = b"".join(
        b"\x12" + varint(len(size) + 1) + b"\x08" + size for size in map(varint, values.shape)
    )
    message = b"\x08" + varint(field["dtype"]) + b"\x12" + varint(len(dims)) + dims
    message += b"\x18" + varint(field["shard"]) + b"\x20" + varint(field["offset"])
    return message + b"\x28" + varint(field["size"]) + b"\x35" + struct.pack("<I", field["crc"])


def write_bundle(
    folder: Path, variables: dict[str, np.ndarray], header: bytes = b"\x08\x01"
) -> None:
    """The three files of a checkpoint named `model`."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, offset = [(b"", header)], 0
    with (folder / "model.data-00000-of-00001").open("wb") as data:
        for name in sorted(variables):
            values = np.asarray(variables[name], order="C")
            entries.append((name.encode(), entry(values, offset)))
            data.write(values.tobytes())
            offset += values.nbytes
    (folder / "model.index").write_bytes(table(entries))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model"\n')


def random_model(name: str, seed: int = 0, thinner: int = 1) -> dict[str, np.ndarray]:
    """Variables of a Spleeter model with random weights of a sensible scale.

    Args:
        name: which model.
        seed: of the weights.
        thinner: how many times fewer filters each level has than in Spleeter.
    """
    rng = np.random.default_rng(seed)
    filters = [num // thinner for num in (16, 32, 64, 128, 256, 512)]
    widths, ups = [2, *filters], [(filters[5], filters[4]), (2 * filters[0], 1)]
    ups[1:1] = [(2 * filters[level], filters[level - 1]) for level in (4, 3, 2, 1)]
    variables: dict[str, np.ndarray] = {}

    def layer(kind: str, number: int, shape: tuple[int, ...], num_out: int) -> None:
        name = f"{kind}_{number}" if number else kind
        scale = (2 / np.prod(shape[:3])) ** 0.5 if kind == "conv2d" else 0.02 * thinner**0.5
        kernel = rng.standard_normal(shape, np.float32) * np.float32(scale)
        variables[f"{name}/kernel"] = kernel
        variables[f"{name}/bias"] = rng.normal(0, 0.1, num_out).astype(np.float32)

    def norm(number: int, width: int) -> None:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        for leaf, low, high in (
            ("gamma", 0.6, 1.4),
            ("beta", -0.3, 0.3),
            ("moving_mean", -0.5, 0.5),
            ("moving_variance", 0.5, 20.0),
        ):
            variables[f"{name}/{leaf}"] = rng.uniform(low, high, width).astype(np.float32)

    for network in range(len(KINDS[name].stems)):
        for level in range(6):
            shape = (5, 5, widths[level], widths[level + 1])
            layer("conv2d", 7 * network + level, shape, widths[level + 1])
            norm(12 * network + level, widths[level + 1])
            num_in, num_out = ups[level]
            layer("conv2d_transpose", 6 * network + level, (5, 5, num_out, num_in), num_out)
            norm(12 * network + 6 + level, num_out)
        layer("conv2d", 7 * network + 6, (4, 4, 1, 2), 2)
    variables["global_step"] = np.array(7, np.int64)
    return variables
