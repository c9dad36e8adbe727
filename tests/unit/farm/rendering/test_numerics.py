"""Numerics of a render: chosen once, guarded, and refused where they cannot be kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asha_ray.errors import FarmError, SpecError
from asha_ray.farm.rendering import numerics as module
from asha_ray.farm.rendering.numerics import (
    choose,
    read_table,
    refusal,
    require_same_kind,
    table_path,
    write_table,
)
from asha_ray.farm.rendering.survey import Survey, choose_codec, survey
from asha_ray.farm.rendering.task import decoders_for
from asha_ray.vae.architecture import architecture_of, build
from asha_ray.vae.model_dir import ModelFiles, read_model, write_model
from asha_ray.vae.numerics import TABLE, device_kind, numerics_of

LATENT = 4
KIND = "cpu-avx512-bf16"
KEYFRAMES = np.random.default_rng(0).standard_normal((9, LATENT)).astype(np.float32)


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    folder = tmp_path / "model"
    folder.mkdir()
    vae = build(architecture_of("seed", (32, 32), LATENT, (8, 16), (16, 8)), 5)
    write_model(folder, vae, KEYFRAMES, {})
    return read_model(folder)


class TestTable:
    def test_what_is_written_is_read(self) -> None:
        rows = {KIND: replace(TABLE[KIND], batch_size=2), "cuda-sm90": TABLE["cuda-sm90"]}
        assert read_table() == {}
        assert write_table(rows) == table_path()
        assert read_table() == rows
        assert [path.name for path in table_path().parent.iterdir()] == ["numerics.json"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", "Expecting"),
            ("[]", "indices"),
            ({"version": 2, "numerics": {}}, "its version is 2"),
            ({"version": 1, "numerics": {KIND: {"dtype": "int3"}}}, "missing"),
            ({"version": 1, "numerics": {KIND: {"batch_size": 0}}}, "batch_size is 0"),
            ({"version": 1, "numerics": {KIND: {"batch_size": True}}}, "batch_size is True"),
            ({"version": 1, "numerics": {KIND: {"dtype": "int3"}}}, "dtype is 'int3'"),
            ({"version": 1, "numerics": {KIND: {"compile": "rm"}}}, "compile is 'rm'"),
            ({"version": 1, "numerics": {KIND: {"colour": 1}}}, "colour"),
        ],
    )
    def test_a_damaged_file_is_told_and_how_to_mend_it(self, content, words) -> None:
        if isinstance(content, dict):
            whole = {"dtype": "float32", "channels_last": True, "batch_size": 1}
            rows = content["numerics"] if words != "missing" else {}
            content = content | {
                "numerics": content["numerics"]
                | {kind: whole | fields for kind, fields in rows.items()}
            }
        table_path().parent.mkdir(parents=True)
        text = content if isinstance(content, str) else json.dumps(content)
        table_path().write_text(text)
        with pytest.raises(SpecError, match=words) as caught:
            read_table()
        assert "bench --tune" in str(caught.value)


class TestGuard:
    def test_precision_that_keeps_the_pictures_is_taken(self, files: ModelFiles) -> None:
        numerics, said = choose(KIND, files, KEYFRAMES)
        assert numerics == numerics_of(KIND)
        assert numerics.dtype == "bfloat16"
        assert "bfloat16" in said
        assert "dB against float32" in said

    def test_precision_that_changes_them_is_not(self, files: ModelFiles, monkeypatch) -> None:
        monkeypatch.setattr(module, "MIN_PSNR_DB", 500.0)
        numerics, said = choose(KIND, files, KEYFRAMES)
        assert numerics == replace(numerics_of(KIND), dtype="float32")
        assert "bfloat16 would change this model's pictures" in said

    def test_a_model_whose_pictures_bfloat16_would_spoil(self, files: ModelFiles) -> None:
        """Huge weights before the sigmoid: a rounding there is the difference of a whole colour."""
        for name, tensor in files.state.items():
            if name.startswith("decoder.layers") and name.endswith("weight"):
                tensor.mul_(40)
        assert choose(KIND, files, KEYFRAMES)[0].dtype == "float32"

    def test_it_decides_the_same_every_time_and_without_keyframes(self, files: ModelFiles) -> None:
        none = KEYFRAMES[:0]
        assert choose(KIND, files, none) == choose(KIND, files, none)

    def test_the_users_table_is_heard(self, files: ModelFiles) -> None:
        write_table({KIND: replace(TABLE["cpu"], batch_size=7)})
        numerics, said = choose(KIND, files, KEYFRAMES)
        assert (numerics.batch_size, numerics.dtype) == (7, "float32")
        assert "7 pictures" in said


class TestKinds:
    def test_a_machine_of_the_same_kind_may_render(self) -> None:
        require_same_kind(numerics_of(device_kind("cpu")), allow_mixed=False)

    @pytest.mark.parametrize("change", [{"kind": "cpu-abacus"}, {"torch_version": "1.0"}])
    def test_another_one_is_refused_unless_that_is_wanted(self, change) -> None:
        planned = replace(numerics_of(device_kind("cpu")), **change)
        with pytest.raises(FarmError, match=r"its frames could differ; .*--allow-mixed"):
            require_same_kind(planned, allow_mixed=False)
        assert refusal(planned, allow_mixed=True) == ""

    def test_a_survey_names_this_machine(self) -> None:
        found = survey("cpu")
        assert (found.kind, found.torch_version) == (device_kind("cpu"), torch.__version__)
        assert found.failures == {}


class TestDecoders:
    @pytest.mark.parametrize(
        ("kind", "cores", "expected"),
        [("cpu-avx2", 1, 1), ("cpu-avx2", 8, 8), ("cuda-sm90", 16, 2), ("mps", 8, 1)],
    )
    def test_a_cpus_cores_are_filled_and_a_gpu_is_shared(self, kind, cores, expected) -> None:
        assert decoders_for(numerics_of(kind), cores) == expected

    def test_decoders_with_more_threads_are_fewer(self) -> None:
        numerics = replace(numerics_of("cpu"), threads=3)
        assert [decoders_for(numerics, cores) for cores in (1, 2, 8)] == [1, 1, 2]


class TestCodec:
    def test_what_is_asked_for_is_taken(self) -> None:
        assert choose_codec("libx265", Survey("cpu", "")) == ("libx265", "")

    def test_auto_takes_the_gpus_encoder_where_it_has_one(self) -> None:
        codec, why = choose_codec("auto", Survey("cuda-sm89", ""))
        assert codec == "h264_nvenc"
        assert "encoder of its own" in why

    def test_auto_says_why_not(self) -> None:
        found = Survey("cuda-sm90", "", {"h264_nvenc": "no capable devices found"})
        codec, why = choose_codec("auto", found)
        assert codec == "libx264"
        assert "no capable devices found" in why


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, "{}" + " " * (2 << 20), '{"version": "' + "x" * 100_000 + '"}'],
    ids=["deep", "large", "long"],
)
def test_a_table_that_is_none_is_an_error_of_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "numerics.json").write_text(content)

    with pytest.raises(SpecError, match=r"numerics\.json: .+; delete the file") as caught:
        read_table(tmp_path / "numerics.json")
    assert len(str(caught.value)) < 500
