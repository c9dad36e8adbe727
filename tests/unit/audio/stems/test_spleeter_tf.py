"""The worker in another environment, with a stand-in for the package; and building that one."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from asha_ray.audio.stems import spleeter_tf
from asha_ray.audio.stems.separator import SeparatorSettings, make_separator
from asha_ray.audio.stems.spleeter_tf import READY, SpleeterTfSeparator, setup_tf
from asha_ray.errors import ResourceError, StemsError
from asha_ray.values import PcmStream
from tests.unit.audio.stems.sounds import snr_db, song, stream, whole

STAND_IN = {
    "utils/configuration.py": """
        def load_configuration(name):
            return {"name": name, "model_dir": "2stems"}
    """,
    "separator.py": """
        import json, os, sys, tempfile
        print("a library that talks on stdout", flush=True)

        class Separator:
            def __init__(self, path, multiprocess):
                assert not multiprocess
                settings = json.load(open(path))
                assert settings["name"] == "spleeter:2stems"
                assert os.path.isfile(settings["model_dir"] + "/model.index")

            def separate(self, sound):
                os.system("echo so do its children")
                assert sound.dtype == "float32" and sound.shape[1] == 2
                if abs(sound).max() > 100:
                    print("the last straw", file=sys.stderr, flush=True)
                    os._exit(9)
                return {"accompaniment": 0.25 * sound, "vocals": 0.5 * sound}
    """,
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with a package `spleeter` that halves and quarters."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(str(Path(np.__file__).parents[1]))
    for name, text in STAND_IN.items():
        path = site / "spleeter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (folder / READY).write_text(spleeter_tf._pins())
    return folder


@pytest.fixture(scope="module")
def separator(environment, two_stems):
    """One for all: it starts a worker anew where a test has ended the last one's."""
    separator = SpleeterTfSeparator("2stems", two_stems, environment)
    yield separator
    separator.close()


def test_what_goes_in_comes_out(separator):
    """Libraries print what they like; none of it may be taken for samples."""
    for seconds in (7, 0.5):
        samples = song(seconds)
        stems = whole(separator.separate(stream(samples)))
        assert list(stems) == ["vocals", "accompaniment"]
        np.testing.assert_array_equal(stems["vocals"], 0.5 * samples)
        np.testing.assert_array_equal(stems["accompaniment"], 0.25 * samples)


def test_one_worker_serves_many_tracks(separator):
    whole(separator.separate(stream(song(0.1))))
    first = separator._worker
    whole(separator.separate(stream(song(0.1))))
    assert separator._worker is first


def test_another_rate_and_no_sound(separator):
    samples = song(1, 48_000)
    stems = whole(separator.separate(stream(samples[:, :1], 48_000)))
    assert stems["vocals"].shape == (48_000, 2)
    assert (
        snr_db(0.5 * samples[9_000:-9_000, 0], stems["vocals"][9_000:-9_000, 1]) > 15
    )  # no hiss above 22 kHz
    assert list(separator.separate(PcmStream(44_100, 2, iter([])))) == []


def test_a_worker_that_dies_is_told_and_replaced(separator):
    """What TensorFlow does to a machine with little memory."""
    with pytest.raises(ResourceError, match=r"code 9; the last straw.*--separator spleeter"):
        list(separator.separate(stream(500 + song(0.1))))
    assert whole(separator.separate(stream(song(0.1))))


def test_a_separation_that_is_given_up_leaves_no_bytes_behind(separator):
    blocks = separator.separate(stream(song(20)))
    next(blocks)
    blocks.close()
    samples = song(0.2, seed=4)
    stems = whole(separator.separate(stream(samples)))
    np.testing.assert_array_equal(stems["vocals"], 0.5 * samples)


def test_closing_ends_the_process(separator):
    whole(separator.separate(stream(song(0.1))))
    process = separator._worker._process
    separator.close()
    separator.close()
    assert process.poll() is not None


def test_it_is_one_of_the_separators(environment, two_stems):
    settings = SeparatorSettings("2stems", two_stems, environment=environment)
    separator = make_separator("spleeter-tf", settings)
    assert (separator.name, separator.sample_rate) == ("spleeter-tf", 44_100)
    assert separator.block_start(10_000_000, 44_100) == 0
    assert "spleeter==2.4.2" in separator.version


def test_a_missing_environment_names_the_remedy(two_stems, tmp_path):
    with pytest.raises(StemsError, match="asha-ray stems --setup-tf"):
        SpleeterTfSeparator("2stems", two_stems, tmp_path)
    (tmp_path / READY).write_text("spleeter==1.0")
    with pytest.raises(StemsError, match="not an environment of its versions"):
        SpleeterTfSeparator("2stems", two_stems, tmp_path)


def test_a_damaged_model_never_reaches_the_package(environment, two_stems, tmp_path):
    """It would separate with random weights and say nothing."""
    folder = tmp_path / "2stems"
    folder.mkdir()
    for path in (two_stems / "2stems").iterdir():
        data = bytearray(path.read_bytes())
        if path.name.startswith("model.data"):
            data[1000] ^= 1
        (folder / path.name).write_bytes(data)
    with pytest.raises(StemsError, match="checksum"):
        SpleeterTfSeparator("2stems", folder, environment)


# ---- building it ----


def use_our_pip(monkeypatch):
    """Environments are built with the tests' own pip: to unpack one takes seconds."""
    run = spleeter_tf._run

    def without_pip(command, folder):
        if "venv" not in command:
            return run(command, folder)
        assert "--without-pip" not in command, "what is built could install nothing"
        run([*command, "--without-pip"], folder)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "ours.pth").write_text(str(Path(np.__file__).parents[1]))
        return None

    monkeypatch.setattr(spleeter_tf, "_run", without_pip)


def test_what_pip_cannot_install_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(spleeter_tf, "SPLEETER", "spleeter-that-is-not==0")
    use_our_pip(monkeypatch)
    folder = tmp_path / "env"
    with pytest.raises(StemsError, match=r"No matching distribution.*then try again"):
        setup_tf(folder)

    def begin(command, where):
        assert not where.exists(), "what was left half built is in the way"
        raise StemsError("begun anew")

    monkeypatch.setattr(spleeter_tf, "_run", begin)
    assert folder.exists()
    with pytest.raises(StemsError, match="begun anew"):
        setup_tf(folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StemsError, match="holds something else"):
        setup_tf(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_an_environment_that_is_there_is_kept(environment):
    assert setup_tf(environment) == environment


def test_a_python_that_is_too_new_needs_another(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(spleeter_tf.shutil, "which", lambda name: None)
    with pytest.raises(StemsError, match=r"needs Python 3\.11"):
        setup_tf(tmp_path / "env")


def test_the_versions_are_pinned():
    """A looser list would build another oracle every month."""
    lines = [line for line in spleeter_tf._pins().splitlines() if not line.startswith("#")]
    assert "spleeter==2.4.2" in lines
    assert "tensorflow==2.12.1" in lines
    assert all("==" in line and "://" not in line for line in lines)
