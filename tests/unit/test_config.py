"""Which cluster is meant: options before the environment before the file, and no secret shown."""

from pathlib import Path

import pytest

from asha_ray.config import ConfigFile, find_target, read_config
from asha_ray.errors import SpecError

FILE = ConfigFile.model_validate(
    {
        "address": "http://file:1",
        "work": "s3://file/work",
        "image": True,
        "prices": {"gpu_hour": 1.5, "currency": "EUR"},
    }
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("given", "environment", "address"),
    [
        pytest.param(
            "http://option:1",
            {"ASHA_ADDRESS": "http://asha:1", "RAY_API_SERVER_ADDRESS": "http://ray:1"},
            "http://option:1",
            id="option",
        ),
        pytest.param(
            None,
            {"ASHA_ADDRESS": "http://asha:1", "RAY_API_SERVER_ADDRESS": "http://ray:1"},
            "http://asha:1",
            id="asha",
        ),
        pytest.param(
            None,
            {"RAY_API_SERVER_ADDRESS": "http://api:1", "RAY_ADDRESS": "http://ray:1"},
            "http://api:1",
            id="ray-api",
        ),
        pytest.param(None, {"RAY_ADDRESS": "https://ray:1"}, "https://ray:1", id="ray"),
        pytest.param(None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "http://file:1", id="not-a-dashboard"),
        pytest.param(None, {"RAY_ADDRESS": "auto"}, "http://file:1", id="file"),
    ],
)
def test_the_address_is_the_first_that_is_named(given, environment, address):
    assert find_target(given, environment=environment, file=FILE).address == address


def test_nothing_named_is_the_near_end_of_a_tunnel():
    assert find_target(environment={}, file=ConfigFile()).address == "http://127.0.0.1:8265"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("https://head/ray/", "https://head/ray"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses_are_written_in_one_way(given, address):
    assert find_target(given, environment={}, file=FILE).address == address


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("ray://head:10001", "give that of the cluster's dashboard"),
        ("http://", "give that of the cluster's dashboard"),
        ("http://head:port", "give that of the cluster's dashboard"),
        ("http://me:hunter22@head:1", "it holds a password"),
    ],
)
def test_what_is_no_address_is_refused(given, reason):
    with pytest.raises(SpecError, match=reason) as caught:
        find_target(given, environment={}, file=FILE)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "token"),
    [
        pytest.param({"ASHA_TOKEN_FILE": "{asha}", "RAY_AUTH_TOKEN": "ray"}, "asha", id="asha"),
        pytest.param({"RAY_AUTH_TOKEN": "ray", "RAY_AUTH_TOKEN_PATH": "{path}"}, "ray", id="ray"),
        pytest.param({"RAY_AUTH_TOKEN_PATH": "{path}"}, "path", id="ray-path"),
        pytest.param({}, "file", id="file"),
    ],
)
def test_the_token_is_the_first_that_is_named(tmp_path, environment, token):
    files = {name: written(tmp_path / name, f"{name}\n") for name in ("asha", "path", "file")}
    environment = {name: text.format(**files) for name, text in environment.items()}
    file = ConfigFile(token_file=files["file"])
    assert find_target(environment=environment, file=file).token == token


def test_without_a_word_rays_own_token_is_used_where_there_is_one(home):
    assert find_target(environment={}, file=ConfigFile()).token is None
    written(home / ".ray" / "auth_token", "own")
    assert find_target(environment={}, file=ConfigFile()).token == "own"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), ("", "holds no token"), ("a b", "no token")]
)
def test_a_token_that_is_named_must_be_there(tmp_path, content, reason):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError, match=reason):
        find_target(token_file=str(path), environment={}, file=ConfigFile())


def test_who_needs_no_cluster_needs_no_token(tmp_path):
    """A list of jobs is read from storage; the token's file may be gone with its cluster."""
    gone = ConfigFile(token_file=str(tmp_path / "gone"))
    assert find_target(environment={}, file=gone, needs_token=False).token is None


def test_a_token_is_never_shown(tmp_path):
    target = find_target(environment={"RAY_AUTH_TOKEN": "hunter22"}, file=ConfigFile())
    assert target.token == "hunter22"
    assert "hunter22" not in repr(target)


def test_the_file_says_what_is_always_the_same(home):
    written(
        home / "config" / "asha-ray" / "config.toml",
        'work = "s3://b/work"\nshared_disk = true\n[prices]\ngpu_hour = 1.2\n',
    )
    target = find_target(environment={})
    assert (target.work, target.shared_disk, target.image) == ("s3://b/work", True, False)
    assert target.prices is not None
    assert (target.prices.gpu_hour, target.prices.cpu_hour, target.prices.currency) == (
        1.2,
        0,
        "USD",
    )
    assert find_target(work="s3://c", environment={"ASHA_WORK": "s3://d"}).work == "s3://c"
    assert find_target(environment={"ASHA_WORK": "s3://d"}).work == "s3://d"
    assert find_target(shared_disk=False, environment={}).shared_disk is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("work = ", "it is no TOML"),
        ('wrok = "s3://b"', "wrok: Extra inputs are not permitted"),
        ("[prices]\ngpu_hour = -1", "prices.gpu_hour: .*greater than or equal to 0"),
        ("image = 'perhaps'\nworks = 1", "image: .*\n.*works: "),
    ],
)
def test_a_wrong_file_is_named_with_its_fields(tmp_path, text, reason):
    path = written(tmp_path / "config.toml", text)
    with pytest.raises(SpecError, match=reason) as caught:
        read_config(Path(path))
    assert path in str(caught.value)


def test_jobs_need_a_work_root():
    with pytest.raises(SpecError, match="ASHA_WORK"):
        find_target(environment={}, file=ConfigFile()).require_work()
