"""Hashes: they change with everything that determines content, and with nothing else."""

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest

from asha_ray.storage.keys import array_digest, chunk_id, digest_of, file_digest
from asha_ray.values import EncoderSettings, Numerics

NUMERICS = Numerics("cpu", "float32", True, 4, 2, "2.9.0")
ENCODER = EncoderSettings("libx264", 18, "veryfast", 2, "9.0")
LATENTS = np.arange(24, dtype=np.float32).reshape(8, 3)
VIDEO = {"size": [64, 48], "fit": "crop", "fps": "60"}


def _id(latents=LATENTS, offset=1, num_frames=5, **changes):
    given = {
        "model_digest": "m",
        "numerics": NUMERICS,
        "encoder": ENCODER,
        "video": VIDEO,
    } | changes
    return chunk_id(latents, offset, num_frames, **given)


def test_digests_do_not_depend_on_the_order_of_keys():
    one = {"a": 1, "b": {"c": [1, 2], "d": None}}
    other = {"b": {"d": None, "c": [1, 2]}, "a": 1}
    assert digest_of(one) == digest_of(other)
    assert digest_of(one) != digest_of({"a": 1, "b": {"c": [2, 1], "d": None}})


def test_digests_tell_values_of_different_kinds_apart():
    values = [1, "1", None, "None", [1], {"1": 1}, True, 1.5, "é", "e\u0301"]
    assert len({digest_of(value) for value in values}) == len(values)


def test_digests_never_change_between_versions():
    """A changed hash renders an archive's thousands of hours anew; if meant, raise the format."""
    assert digest_of({"b": 1, "a": "é"}) == hashlib.sha256(b'{"a":"\\u00e9","b":1}').hexdigest()
    expected = hashlib.sha256(b"2x1:" + np.array([1, 2], "<f4").tobytes()).hexdigest()
    assert array_digest(np.array([[1], [2]], np.float32)) == expected


def test_an_arrays_shape_counts_and_its_memory_layout_does_not():
    assert array_digest(LATENTS) != array_digest(LATENTS.reshape(4, 6))
    assert array_digest(LATENTS) == array_digest(np.asfortranarray(LATENTS))
    assert array_digest(LATENTS) == array_digest(LATENTS.astype(">f4"))


def test_a_files_digest_is_its_sha256(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"content" * 10_000)
    assert file_digest(path) == hashlib.sha256(b"content" * 10_000).hexdigest()


def _other(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else f"{value}x"


NUDGED = LATENTS.copy()
NUDGED[7, 2] = np.nextafter(NUDGED[7, 2], np.float32(1e9))

CHANGES = {
    "one-bit-of-a-latent": {"latents": NUDGED},
    "offset": {"offset": 2},
    "frames": {"num_frames": 6},
    "model": {"model_digest": "n"},
    **{f"video-{key}": {"video": VIDEO | {key: "other"}} for key in VIDEO},
    **{
        f"numerics-{field.name}": {
            "numerics": replace(NUMERICS, **{field.name: _other(getattr(NUMERICS, field.name))})
        }
        for field in fields(Numerics)
    },
    **{
        f"encoder-{field.name}": {
            "encoder": replace(ENCODER, **{field.name: _other(getattr(ENCODER, field.name))})
        }
        for field in fields(EncoderSettings)
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_chunks_name_changes_with_each_ingredient(change):
    """Otherwise an old segment would be joined into a video it does not belong to."""
    assert _id(**CHANGES[change]) != _id()


def test_a_chunks_name_is_short_and_does_not_depend_on_key_order():
    turned = dict(reversed(VIDEO.items()))
    assert _id(video=turned) == _id()
    assert len(_id()) == 40
    assert set(_id()) <= set("0123456789abcdef")
