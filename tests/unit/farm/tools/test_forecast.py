"""Forecasts: the sums come out as by hand, and a kept track's chunks are those of its render."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asha_ray.cli.plan import forecast_text
from asha_ray.errors import SpecError
from asha_ray.farm.archive.todo import Agenda, find_todo, source_of
from asha_ray.farm.listening.analysis import analysis_job, analyze_uri
from asha_ray.farm.tools import forecast, forecast_render
from asha_ray.farm.tools.forecast import Known, plan_training
from asha_ray.farm.tools.forecast_archive import plan_archive
from asha_ray.farm.tools.forecast_render import plan_render
from asha_ray.farm.tools.plan import plan, spec_of
from asha_ray.farm.tools.rates import MachineRate, Rates
from asha_ray.progress import NullProgress
from asha_ray.spec import ArchiveSpec, Prices, RenderSpec, TrainSpec, build
from asha_ray.storage.ledger import Ledger, ShowRecord
from asha_ray.vae.architecture import architecture_of
from asha_ray.vae.architecture import build as build_vae
from asha_ray.vae.model_dir import write_model
from tests import media

SECONDS = 2.5
KIND = "cpu-abacus"
MACHINE = MachineRate(
    kind=KIND,
    cores=2,
    listen=100,
    join=50,
    import_s=2,
    start_s={"serial": 3, "ray": 8},
    time="2024",
)
KNOWN = Known(
    Rates(machines=(MACHINE,)), rate=10.0, prices=Prices(currency="EUR", gpu_hour=3, cpu_hour=0.5)
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(forecast, "device_kind", lambda _: KIND)
    monkeypatch.setattr(forecast, "cpu_threads", lambda: 2)
    for module in (forecast, forecast_render):
        monkeypatch.setattr(module, "pick_device", lambda: "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    keyframes = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    write_model(
        folder, build_vae(architecture_of("seed", (16, 16), 4, (4,), (8, 4))), keyframes, {}
    )
    return str(folder)


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sound") / "t.wav"
    return str(media.write_sound(path, media.music(SECONDS)))


@pytest.fixture
def spec(track: str, model: str, tmp_path: Path) -> RenderSpec:
    run = {"executor": "serial", "chunk_s": 1}
    data = {"audio": track, "model": model, "output": tmp_path / "v.mp4", "run": run}
    return build(RenderSpec, {**data, "video": {"fps": 20}})


def changed(spec: RenderSpec, **run) -> RenderSpec:
    return spec.model_copy(update={"run": spec.run.model_copy(update=run)})


def test_a_track_that_nobody_has_listened_to(spec: RenderSpec) -> None:
    found = plan_render(spec, KNOWN)

    assert (found.frames, found.chunks, found.missing_frames) == (50, 3, 50)
    assert (found.fps, found.size, found.duration_s) == ("20", (16, 16), 2.5)
    assert (found.listened, found.reused_chunks) == (False, 0)
    assert found.stages == {
        "importing": 2,
        "starting": 3,
        "listening": 0.025,
        "rendering": 5,
        "joining": 0.05,
    }
    assert found.seconds == pytest.approx(10.075)
    assert found.wall_s == pytest.approx(8.075)
    assert found.cpu_hours == pytest.approx(2 * 5.025 / 3600)
    assert (found.gpu_hours, found.workers_for_a_week) == (0, 1)
    assert found.cost == pytest.approx(0.5 * found.cpu_hours)
    assert found.video_bytes == round(50 * 0.1 * 256 / 8 + 2.5 * 24_000)
    assert "not listened to yet" in found.notes[-1]


def test_nothing_is_written(spec: RenderSpec, tmp_path: Path) -> None:
    """A plan in a folder that cannot be written to, or of somebody else, would be no plan."""
    plan_render(spec, KNOWN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", ["20", "30000/1001"], ids=["the same rate", "another rate"])
def test_features_that_are_kept_tell_the_chunks(spec: RenderSpec, tmp_path: Path, fps: str) -> None:
    """Measured once is measured for every frame rate."""
    work = str(tmp_path / ".asha")
    analyze_uri(analysis_job(spec.audio, "20", spec.features), work)
    before = sorted(tmp_path.rglob("*"))

    video = spec.video.model_copy(update={"fps": fps})
    found = plan_render(spec.model_copy(update={"video": video}), KNOWN)

    assert found.listened
    assert found.stages["listening"] == 0
    assert found.reused_chunks == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_part_of_a_track(spec: RenderSpec) -> None:
    part = spec.model_copy(update={"start": 1.0, "duration": 0.5})
    assert plan_render(part, KNOWN).frames == 10
    with pytest.raises(SpecError, match="lies past the end of the track"):
        plan_render(spec.model_copy(update={"start": 9.0}), KNOWN)


def test_workers_share_the_chunks_and_ray_takes_longer_to_begin(spec: RenderSpec) -> None:
    found = plan_render(changed(spec, executor="ray", workers=2), KNOWN)
    assert (found.stages["starting"], found.stages["rendering"]) == (8, 3)
    alone = plan_render(changed(spec, executor="ray"), KNOWN)
    assert (alone.workers, alone.stages["rendering"]) == (1, 5)
    assert "--workers says how many" in alone.notes[0]


def test_a_gpu_that_is_elsewhere_is_paid_by_the_gpu_hour(spec: RenderSpec) -> None:
    found = plan_render(changed(spec, executor="ray", device="cuda", workers=3), KNOWN)
    assert found.cpu_hours == 0
    assert found.gpu_hours == found.worker_hours > 0
    assert found.cost == pytest.approx(3 * found.gpu_hours)


@pytest.mark.parametrize(
    ("run", "gpus"),
    [
        ({"executor": "ray", "device": "cuda", "gpus_per_worker": 0.25}, 0.25),
        ({"executor": "ray", "device": "cuda", "gpus_per_worker": 2}, 2),
        ({"executor": "ray", "device": "cpu", "gpus_per_worker": 0.5}, 0.5),
        ({"executor": "serial", "device": "cpu", "gpus_per_worker": 0.5}, 0),
    ],
    ids=["share", "several", "on CPUs", "serial"],
)
def test_what_workers_reserve_of_gpus_is_what_is_paid(
    spec: RenderSpec, run: dict, gpus: float
) -> None:
    """The bill of a job counts so: a forecast of four times that would stop somebody."""
    found = plan_render(changed(spec, workers=2, **run), KNOWN)
    assert found.gpu_hours == pytest.approx(gpus * found.worker_hours)
    assert found.cpu_hours == pytest.approx(0 if gpus else 2 * found.worker_hours)
    assert ("a GPU to itself" in " ".join(found.notes)) == (gpus == 0.25)


def archive(model: str, **run) -> ArchiveSpec:
    data = {"source": "/shows", "output": "/videos", "model": model, "run": {"workers": 2, **run}}
    return build(ArchiveSpec, {**data, "video": {"fps": 30}})


def test_an_archive_is_reckoned_by_its_bytes(model: str) -> None:
    hours = 1000
    sizes = [(f"{hour}.mp3", 24_000 * 3600) for hour in range(hours - 1)]
    sizes.append(("last.WAV", 176_400 * 3600))

    found = plan_archive(archive(model), sizes, replace(KNOWN, rate=100.0))

    assert (found.shows, found.duration_s) == (hours, hours * 3600)
    assert found.frames == found.missing_frames == hours * 3600 * 30
    assert found.chunks == hours * 360
    # 108 million frames at 100/s; 3.6 million seconds of sound at 100 and at 50 a second.
    taken_s = 1_080_000 + 36_000 + 72_000
    assert found.worker_hours == pytest.approx(taken_s / 3600)
    assert found.seconds == pytest.approx(taken_s / 2 + 10)
    assert found.workers_for_a_week == 2
    assert found.cost == pytest.approx(0.5 * 2 * taken_s / 3600)


def test_gpus_do_not_wait_for_who_listens(model: str) -> None:
    sizes = [("a.mp3", 24_000 * 3600)]
    found = plan_archive(archive(model, device="cuda"), sizes, KNOWN)
    assert found.gpu_hours == pytest.approx(3600 * 30 / 10 / 3600)


def test_bytes_of_a_second_may_be_known_better(model: str) -> None:
    found = plan_archive(archive(model), [("a.mp3", 8000)], KNOWN, bytes_per_s={".mp3": 8000})
    assert found.duration_s == 1


@pytest.mark.parametrize("sizes", [[], [("a.mp3", 0)]], ids=["no shows", "an empty one"])
def test_nothing_takes_nothing(model: str, sizes) -> None:
    found = plan_archive(archive(model), sizes, KNOWN)
    assert (found.frames, found.chunks, found.cost) == (0, 0, 0)
    assert forecast_text(found)


def test_a_training_has_steps_and_no_rate(tmp_path: Path) -> None:
    for index in range(5):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index}.png")
    data = {"images": tmp_path, "output": "m", "epochs": 7, "batch_size": 2}

    found = plan_training(build(TrainSpec, {**data, "run": {"workers": 2}}))

    assert (found.images, found.epochs, found.steps) == (5, 7, 14)
    assert (found.seconds, found.cost, found.worker_hours) == (None, None, None)
    text = forecast_text(found)
    assert "note: there is no rate for training" in text
    assert "14 steps" in text


def test_people_see_all_that_counts(spec: RenderSpec) -> None:
    lines = forecast_text(plan_render(spec, KNOWN)).split("\n")
    cells = {line.split()[0]: line.split() for line in lines}
    assert cells["frames"][1:] == ["50", "16x16", "at", "20", "fps"]
    assert cells["takes"][1] == "0:10"
    assert cells["costs"][1:] == ["0.00", "EUR"]
    assert all(line == line.rstrip() for line in lines)


class TestWhat:
    def test_a_folder_is_an_archive(self, tmp_path: Path) -> None:
        found = spec_of(str(tmp_path), {}, {"model": "m", "fps": "30", "workers": None})
        assert isinstance(found, ArchiveSpec)
        assert (found.source, found.video.fps) == (str(tmp_path), "30")

    def test_a_file_is_a_track_and_needs_no_output(self, track: str) -> None:
        found = spec_of(track, {"seed": 3}, {"model": "m", "out": None})
        assert isinstance(found, RenderSpec)
        assert (found.audio, found.output, found.seed) == (track, f"{track}.mp4", 3)

    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            ({"kind": "archive", "source": "s", "output": "o", "model": "m"}, ArchiveSpec),
            ({"kind": "train", "images": "i", "output": "o"}, TrainSpec),
            ({"audio": "a", "output": "o", "model": "m"}, RenderSpec),
        ],
    )
    def test_a_spec_file_says_what_it_is(self, data, kind) -> None:
        assert isinstance(spec_of("f.yaml", data, {}), kind)

    def test_an_archive_has_no_start(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="there is no option 'start'"):
            spec_of(str(tmp_path), {}, {"model": "m", "start": 3.0})

    def test_a_training_takes_no_options(self) -> None:
        with pytest.raises(SpecError, match="a training takes no options"):
            spec_of("f.yml", {"kind": "train"}, {"fps": "30"})

    def test_an_archive_without_sound_is_refused(self, tmp_path: Path, model: str) -> None:
        (tmp_path / "notes.txt").write_text("x")
        spec = spec_of(str(tmp_path), {}, {"model": model})
        with pytest.raises(SpecError, match="there are no sound files below it"):
            plan(spec, rate=1)

    def test_what_is_done_is_planned_no_more_and_tells_bit_rates(
        self, tmp_path: Path, model: str
    ) -> None:
        source, out = tmp_path / "shows", tmp_path / "videos"
        source.mkdir()
        for name in ("done.mp3", "new.mp3", "cover.jpg"):
            (source / name).write_bytes(b"x" * 1000)
        given = {"model": model, "out": str(out), "fps": "10"}
        spec = spec_of(str(source), {}, given)
        assert isinstance(spec, ArchiveSpec)
        todo = {item.source.key: item for item in agenda(spec).todo}
        one = todo["done.mp3"]
        record = ShowRecord(
            *(one.show_id, "done", "done.mp3", source_of(one.source), one.settings),
            source_bytes=1000, duration_s=20.0, output="done.mp4",
        )  # fmt: skip
        Ledger(str(out)).write(record)
        for name in ("done.mp4", "done.mp4.json"):
            (out / name).write_text("x")
        found = plan(spec, rate=10)
        assert (found.shows, found.frames) == (1, 200)
        assert any("1 shows more are done" in note for note in found.notes)


def agenda(spec: ArchiveSpec) -> Agenda:
    return find_todo(spec, Ledger(spec.output), NullProgress())


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(spec: RenderSpec, rate: float) -> None:
    with pytest.raises(SpecError, match="rate: more than 0 frames per second"):
        plan(spec, rate=rate)


def test_prices_are_the_users_own(spec: RenderSpec, tmp_path: Path) -> None:
    assert plan(spec, rate=10).cost is None
    file = tmp_path / "config" / "asha-ray" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[prices]\ncurrency = "CHF"\ncpu_hour = 1.0\n')
    found = plan(spec, rate=10)
    assert (found.currency, found.cost) == ("CHF", found.cpu_hours)
    dearer = plan(spec, rate=10, prices={"cpu_hour": 3})
    assert (dearer.currency, dearer.cost) == ("CHF", 3 * found.cpu_hours)
    with pytest.raises(SpecError, match="prices: cpu_hour"):
        plan(spec, rate=10, prices={"cpu_hour": -1})


def test_without_rates_it_says_what_to_run(spec: RenderSpec) -> None:
    with pytest.raises(SpecError, match=r"run `asha-ray bench --model .* --size 16x16`"):
        plan(spec)
