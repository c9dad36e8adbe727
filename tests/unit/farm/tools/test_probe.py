"""What a probe does on a worker, and how what it says comes back."""

import json
import threading
import tomllib
from pathlib import Path

import pytest

import asha_ray
from asha_ray.errors import FarmError, ResourceError, StorageError
from asha_ray.farm.tools import doctor, probe
from asha_ray.farm.tools.doctor import DEPENDENCIES, Finding, examine_worker
from asha_ray.farm.tools.probe import (
    finding_of,
    look,
    read_report,
    report_line,
    try_storage,
    within,
)

FOUND = [Finding("python", "3.11.9"), Finding("gpu", "none\n", "mend it; soon")]


def test_a_report_comes_back_as_it_was_amid_whatever_else_is_said() -> None:
    log = f"\x1b[1mINFO\x1b[0m joining\n{report_line('a', FOUND)}\nbye\n"

    report = read_report("a", log)
    assert report is not None
    assert report.version == asha_ray.__version__
    assert report.findings == FOUND


def test_a_report_of_another_probe_is_none() -> None:
    assert read_report("a", report_line("b", FOUND)) is None


@pytest.mark.parametrize(
    "said",
    [
        "{torn",
        "[]",
        "null",
        '{"version": "1"}',
        '{"version": "1", "findings": 7}',
        '{"version": "1", "findings": [["name", "value"]]}',
        '{"version": "1", "findings": [{"name": "x"}]}',
        "[" * 100_000,
    ],
    ids=["torn", "list", "null", "none", "number", "lists", "fields", "deep"],
)
def test_nonsense_is_no_report(said: str) -> None:
    """A cluster may say anything."""
    assert read_report("a", f"<<asha-probe a>>{said}<<asha-probe a>>") is None


def test_no_report_is_beyond_all_size() -> None:
    finding = {"name": "x", "value": "y" * 10_000, "remedy": ""}
    said = json.dumps({"version": "1", "findings": [finding] * 100})

    report = read_report("a", f"<<asha-probe a>>{said}<<asha-probe a>>")
    assert report is not None
    assert len(str(report)) < 200_000


def test_a_worker_that_is_not_there_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ResourceError("starting a worker with a GPU: none was there in 3 s; add one")

    monkeypatch.setattr("asha_ray.farm.on_ray.probe.on_worker", fail)

    report = read_report("a", probe.probe("a", probe.NO_WORK, 5))
    assert report is not None
    assert report.findings == [
        Finding("process", "starting a worker with a GPU: none was there in 3 s", "add one")
    ]


def test_a_work_root_that_works_needs_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "another").write_text("of somebody else")

    found = try_storage(str(tmp_path), "mine")

    assert found.remedy == ""
    assert all(step in found.value for step in ("write ", "list ", "read ", "delete "))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["another"]


def test_a_work_root_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    found = try_storage(str(tmp_path / "file"), "mine")
    assert str(tmp_path) in found.value
    assert found.remedy


class Broken:
    """A storage that keeps something else than it was given, or shows nothing."""

    def __init__(self, kept: bytes | None, *, shows: bool = True) -> None:
        self._kept, self._shows, self.deleted = kept, shows, ""

    def write(self, uri: str, data: bytes) -> None:
        self._uri, self._data = uri, data

    def list(self, _: str) -> list[object]:
        return [type("Entry", (), {"uri": self._uri})] if self._shows else []

    def read(self, _: str) -> bytes:
        return self._data if self._kept is None else self._kept

    def delete(self, uri: str) -> None:
        self.deleted = uri


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        (Broken(b"else"), "it reads back changed"),
        (Broken(None, shows=False), "a list does not show it"),
    ],
    ids=["changed", "unlisted"],
)
def test_a_store_that_is_not_what_it_should_be_is_told(
    monkeypatch: pytest.MonkeyPatch, storage: Broken, told: str
) -> None:
    monkeypatch.setattr(probe, "storage_of", lambda _: storage)

    found = try_storage("s3://bucket/work", "mine")
    assert told in found.value
    assert "consistent" in found.remedy
    assert storage.deleted == "s3://bucket/work/doctor/mine"


def test_a_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(probe, "storage_of", lambda _: never.wait())

    found = try_storage("s3://bucket/work", "mine", limit_s=0.05)
    never.set()

    assert found.value == "s3://bucket/work has not answered in 0.05 s"
    assert "AWS_ENDPOINT_URL" in found.remedy


def test_an_error_becomes_what_is_wrong_and_what_to_do_and_tells_no_secret() -> None:
    error = StorageError("writing http://me:hush@host/x: refused; denied; check the key")

    assert finding_of("storage", error) == Finding(
        "storage", "writing http://***@host/x: refused; denied", "check the key"
    )
    assert finding_of("worker", FarmError("all is lost")).remedy


def test_what_is_waited_for_comes_as_it_is_or_not_at_all() -> None:
    never = threading.Event()

    assert within(10, lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)
    with pytest.raises(TimeoutError):
        within(0.05, never.wait)
    never.set()


def test_a_worker_without_a_work_root_is_looked_at_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "examine_worker", lambda **_: [FOUND[0]])

    own = Finding("asha-ray", asha_ray.__version__)
    assert look(False, probe.NO_WORK, "mine", own.value) == [own, FOUND[0]]
    found = look(False, str(tmp_path), "mine", own.value)
    assert [each.name for each in found] == ["asha-ray", "python", "storage"]


def test_a_worker_with_another_asha_ray_than_its_driver_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "examine_worker", lambda **_: [])

    [found] = look(False, probe.NO_WORK, "mine", "9.9.9")
    assert found.value.startswith(f"{asha_ray.__version__} in ")
    assert found.value.endswith("its driver runs 9.9.9")
    assert found.remedy


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_aws")
def test_a_worker_whose_gpu_torch_does_not_see_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    found = {each.name: each for each in examine_worker(has_gpu=True)}
    assert "Ray gives one" in found["gpu"].value
    assert "nvidia-smi" in found["gpu"].remedy
    assert {"python", "packages", "imports", "ffmpeg", "memory", "disk", "s3"} <= set(found)
    # It may have come with the job, and is installed nowhere then.
    assert "asha-ray" not in found["packages"].value + found["packages"].remedy


def test_a_dependency_that_is_there_and_broken_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_library.py").write_text("raise OSError('libsndfile.so: not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        doctor, "DEPENDENCIES", {"json": "json", "broken": "broken_library", "gone": "not_there"}
    )

    found = doctor._imports()
    assert "broken (OSError: libsndfile.so: not found)" in found.value
    assert found.remedy == "install broken, gone there"


def test_every_dependency_is_looked_at() -> None:
    project = Path(asha_ray.__file__).parents[1] / "pyproject.toml"
    wanted = tomllib.loads(project.read_text())["project"]["dependencies"]

    assert sorted(DEPENDENCIES) == sorted(text.split(">")[0].split("[")[0] for text in wanted)
