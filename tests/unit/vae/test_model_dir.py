"""The model directory: what comes back, and what is refused with a word on why."""

import json
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asha_ray.errors import ModelError
from asha_ray.vae.architecture import Architecture, Vae
from asha_ray.vae.model_dir import (
    CONFIG,
    FILES,
    KEYFRAMES,
    WEIGHTS,
    read_config,
    read_model,
    write_model,
)


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def npy_bytes(header: str, data: bytes = b"") -> bytes:
    padded = header + " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("latin1") + data


def test_round_trip(
    model_folder: Path,
    tiny_vae: Vae,
    tiny_architecture: Architecture,
    tiny_keyframes: np.ndarray,
) -> None:
    files = read_model(model_folder)

    assert files.architecture == tiny_architecture
    assert files.training == {"epochs": 3, "name": "Wald — лес"}
    np.testing.assert_array_equal(files.keyframes, tiny_keyframes)
    assert files.keyframes.dtype == np.float32
    state = tiny_vae.state_dict()
    assert files.state.keys() == state.keys()
    assert all(torch.equal(files.state[name], state[name]) for name in state)
    assert sorted(path.name for path in model_folder.iterdir()) == sorted(FILES)


def test_config_says_what_it_is(model_folder: Path) -> None:
    config = json.loads((model_folder / CONFIG).read_text())

    assert config["version"] == 1
    assert config["architecture"]["image_size"] == [24, 16]


@pytest.mark.parametrize("part", FILES)
def test_a_missing_part_is_named(model_folder: Path, part: str) -> None:
    (model_folder / part).unlink()

    with pytest.raises(ModelError, match=rf"reading model the-model: {part} is missing; "):
        read_model(model_folder, "the-model")


def test_a_newer_version_is_told_to_update(model_folder: Path) -> None:
    edit_config(model_folder, version=2, architecture="unreadable by us")

    with pytest.raises(ModelError, match=r"version 2 is newer than 1.*update asha-ray"):
        read_model(model_folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00binary",
        b"{}",
        b'{"version": "1"}',
        b'{"version": null}',
        b"[" * 100_000,
        b'{"version": 1}' + b" " * (5 << 20),
    ],
    ids=lambda content: repr(content[:18]),
)
def test_a_damaged_config_is_refused(model_folder: Path, content: bytes) -> None:
    (model_folder / CONFIG).write_bytes(content)

    with pytest.raises(ModelError, match=r"config\.json is damaged .*; train the model again"):
        read_config(model_folder)


@pytest.mark.parametrize(
    "architecture",
    [None, [], ["seed"], "seed", {}, {"name": "seed"}, {"image_size": {"w": 1, "h": 2}}],
    ids=repr,
)
def test_a_wrong_architecture_is_refused(model_folder: Path, architecture: Any) -> None:
    edit_config(model_folder, architecture=architecture)

    with pytest.raises(ModelError, match=r"architecture is not complete.*; train the model again"):
        read_model(model_folder)


@pytest.mark.parametrize("training", [None, 7, ["list"]], ids=repr)
def test_a_training_summary_that_is_none_is_left_out(model_folder: Path, training: Any) -> None:
    edit_config(model_folder, training=training)

    assert read_model(model_folder).training == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"rest",
        struct.pack("<Q", 2) + b"[]",
        pickle.dumps({"encoder": 1}),
    ],
    ids=["empty", "text", "huge header", "bytes nobody owns", "list", "pickle"],
)
def test_damaged_weights_are_refused(model_folder: Path, content: bytes) -> None:
    (model_folder / WEIGHTS).write_bytes(content)

    with pytest.raises(ModelError, match=r"model\.safetensors is damaged .*; copy or train"):
        read_model(model_folder)


def test_truncated_weights_are_refused(model_folder: Path) -> None:
    path = model_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelError, match="is damaged"):
        read_model(model_folder)


def test_a_tensor_of_another_shape_is_named(model_folder: Path) -> None:
    state = load_file(model_folder / WEIGHTS)
    state["encoder.z_mean.bias"] = torch.zeros(5)
    save_file(state, model_folder / WEIGHTS)

    with pytest.raises(ModelError, match=r"encoder\.z_mean\.bias has shape \[5\], not \[4\]"):
        read_model(model_folder)


@pytest.mark.parametrize("extra", [True, False], ids=["one more", "one less"])
def test_tensors_too_many_or_too_few_are_named(model_folder: Path, extra: bool) -> None:
    state = load_file(model_folder / WEIGHTS)
    if extra:
        state["zzz"] = torch.zeros(2)
    else:
        del state["decoder.dense.bias"]
    save_file(state, model_folder / WEIGHTS)

    with pytest.raises(ModelError, match=r"tensor (zzz|decoder\.dense\.bias) has shape"):
        read_model(model_folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(model_folder: Path, value: float) -> None:
    state = load_file(model_folder / WEIGHTS)
    state["decoder.dense.weight"][0, 0] = value
    save_file(state, model_folder / WEIGHTS)

    with pytest.raises(ModelError, match=r"NaN or infinite weights.*--learning-rate"):
        read_model(model_folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_precision_work_or_are_refused(
    model_folder: Path, dtype: torch.dtype
) -> None:
    """A directory may be edited by hand: halved weights must not fail deep inside torch."""
    from asha_ray.vae.generator import VaeGenerator, numerics_for

    state = {name: value.to(dtype) for name, value in load_file(model_folder / WEIGHTS).items()}
    save_file(state, model_folder / WEIGHTS)

    try:
        generator = VaeGenerator(read_model(model_folder), numerics_for("cpu", 0))
    except ModelError as error:
        assert "dtype" in str(error) or "precision" in str(error)  # noqa: PT017
        return
    assert generator.encode(np.zeros((1, 16, 24, 3), np.float32)).shape == (1, 4)


def test_whole_number_weights_are_refused(model_folder: Path) -> None:
    from asha_ray.vae.generator import load_vae

    state = {name: value.long() for name, value in load_file(model_folder / WEIGHTS).items()}
    save_file(state, model_folder / WEIGHTS)

    with pytest.raises(ModelError):
        load_vae(read_model(model_folder))


class TestKeyframes:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"text",
            b"\x93NUMPY",
            b"\x93NUMPY\x01\x00\xff\xff{",
            npy_bytes("{'descr': '<f4'"),
            npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2,"),
            npy_bytes("no literal ("),
            npy_bytes("{'descr': '|S9', 'fortran_order': False, 'shape': (1, 4), }", b"x" * 36),
            npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }", b"x" * 36),
            b"PK\x03\x04 and then nothing of a zip file",
        ],
        ids=[
            "empty",
            "text",
            "magic only",
            "header cut",
            "header without end",
            "shape without end",
            "header of words",
            "strings",
            "negative shape",
            "torn zip",
        ],
    )
    def test_damaged_arrays_are_refused(self, model_folder: Path, content: bytes) -> None:
        (model_folder / KEYFRAMES).write_bytes(content)

        with pytest.raises(ModelError, match=r"reading keyframes of .*keyframes\.npy"):
            read_model(model_folder)

    def test_pickled_objects_are_never_loaded(self, model_folder: Path, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple:
                return Path.touch, (tmp_path / "was run",)

        for content in (np.array([Evil()], dtype=object), Evil()):
            with (model_folder / KEYFRAMES).open("wb") as file:
                if isinstance(content, np.ndarray):
                    np.save(file, content, allow_pickle=True)
                else:
                    pickle.dump(content, file)

            with pytest.raises(ModelError, match=r"keyframes\.npy is damaged"):
                read_model(model_folder)
        assert not (tmp_path / "was run").exists()

    def test_a_header_that_claims_too_much_costs_no_memory(self, model_folder: Path) -> None:
        claim = "{'descr': '<f4', 'fortran_order': False, 'shape': (25000000000, 4), }"
        (model_folder / KEYFRAMES).write_bytes(npy_bytes(claim, b"\0" * 64))
        tracemalloc.start()
        try:
            with pytest.raises(ModelError, match=r"keyframes\.npy is damaged"):
                read_model(model_folder)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10_000_000

    @pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 2, 4), ()], ids=str)
    def test_another_shape_is_named(self, model_folder: Path, shape: tuple[int, ...]) -> None:
        np.save(model_folder / KEYFRAMES, np.zeros(shape, np.float32))

        with pytest.raises(ModelError, match=r"has shape \[.*\], but the model needs \[num"):
            read_model(model_folder)

    def test_nan_is_refused(self, model_folder: Path) -> None:
        np.save(model_folder / KEYFRAMES, np.full((2, 4), np.nan, np.float32))

        with pytest.raises(ModelError, match="holds NaN or infinite values"):
            read_model(model_folder)

    def test_an_edited_float64_array_is_taken(self, model_folder: Path) -> None:
        np.save(model_folder / KEYFRAMES, np.ones((2, 4)))

        assert read_model(model_folder).keyframes.dtype == np.float32


class TestDigest:
    def test_changes_with_weights(self, model_folder: Path) -> None:
        before = read_model(model_folder).digest
        state = load_file(model_folder / WEIGHTS)
        state["decoder.dense.bias"][0] += 1
        save_file(state, model_folder / WEIGHTS)

        assert read_model(model_folder).digest != before

    def test_is_the_decoders_however_it_is_read(self, model_folder: Path) -> None:
        """The encoder draws nothing, so that a render need not read it."""
        before = read_model(model_folder)
        alone = read_model(model_folder, decoder_only=True)
        assert alone.digest == before.digest
        assert all(name.startswith("decoder.") for name in alone.state)
        state = load_file(model_folder / WEIGHTS)
        state["encoder.z_mean.bias"][0] += 1
        save_file(state, model_folder / WEIGHTS)

        assert read_model(model_folder).digest == before.digest

    def test_does_not_change_with_keyframes_or_summary(self, model_folder: Path) -> None:
        before = read_model(model_folder).digest
        np.save(model_folder / KEYFRAMES, np.zeros((1, 4), np.float32))
        edit_config(model_folder, training={"epochs": 9})

        assert read_model(model_folder).digest == before

    def test_does_not_change_with_the_place(self, model_folder: Path, tmp_path: Path) -> None:
        before = read_model(model_folder)
        elsewhere = model_folder.rename(tmp_path / "elsewhere")

        assert read_model(elsewhere).digest == before.digest

    def test_changes_with_the_picture_size(self, tmp_path: Path, tiny_vae: Vae) -> None:
        from asha_ray.vae.architecture import architecture_of, build

        digests = set()
        for size in ((24, 16), (23, 16)):
            vae = build(architecture_of("seed", size, 4, (4, 8), (8, 4)))
            vae.load_state_dict(tiny_vae.state_dict())
            folder = tmp_path / str(size[0])
            folder.mkdir()
            write_model(folder, vae, np.zeros((1, 4), np.float32), {})
            digests.add(read_model(folder).digest)

        assert len(digests) == 2


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000, 8), }",
        "{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000, 8), }",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 8), }",
        "~" * 9000 + "1",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 8), }",
    ],
    ids=["no bytes", "empty texts", "complex", "nested", "many digits"],
)
def test_keyframes_that_are_no_numbers_are_refused(model_folder: Path, header: str) -> None:
    """Items without bytes fit any file, and would be terabytes as float32."""
    (model_folder / KEYFRAMES).write_bytes(npy_bytes(header, bytes(64)))

    with pytest.raises(ModelError, match=r"keyframes\.npy is damaged \(.+\); write it") as caught:
        read_model(model_folder)
    assert len(str(caught.value)) < 500


def test_weights_with_millions_of_names_cost_nothing(model_folder: Path) -> None:
    """safetensors itself would parse a header of 100 MB, at fifteen times its size."""
    entry = '"{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    header = ("{" + ",".join(entry.format(number) for number in range(100_000)) + "}").encode()
    (model_folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)

    tracemalloc.start()
    with pytest.raises(ModelError, match="its header is too large"):
        read_model(model_folder)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 10**4000},
        {"version": "1" * 100_000},
        {"architecture": {"name": "seed" * 100_000}},
        {"architecture": {"latent_dim": "9" * 100_000}},
    ],
    ids=["version", "version's text", "name", "latent"],
)
def test_an_error_quotes_no_more_than_a_line(model_folder: Path, changes: dict[str, Any]) -> None:
    config = json.loads((model_folder / CONFIG).read_text())
    if "architecture" in changes:
        changes = {"architecture": {**config["architecture"], **changes["architecture"]}}
    edit_config(model_folder, **changes)

    with pytest.raises(ModelError) as caught:
        read_model(model_folder)
    assert len(str(caught.value)) < 500
