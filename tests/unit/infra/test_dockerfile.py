"""The image: what Docker would build, read without Docker."""

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from tests.unit.infra import INFRA, ROOT

PATH = INFRA / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(
    line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line
)
SECRET = re.compile(r"token|secret|password|credential|access_key|api_?key", re.IGNORECASE)


class Stage(NamedTuple):
    base: str
    instructions: list[tuple[str, str]]

    def values(self, kind: str) -> list[str]:
        return [value for name, value in self.instructions if name == kind]


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> DockerfileParser:
    # It writes what it reads; not into the repository.
    path = tmp_path_factory.mktemp("image") / "Dockerfile"
    path.write_text(PATH.read_text())
    return DockerfileParser(path=str(path))


@pytest.fixture(scope="module")
def stages(parser: DockerfileParser) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    for step in parser.structure:
        if step["instruction"] == "FROM":
            base, _, name = step["value"].partition(" AS ")
            found[name] = Stage(base, [])
        elif found and step["instruction"] != "COMMENT":
            found[name].instructions.append((step["instruction"], step["value"]))
    return found


def lineage(stages: dict[str, Stage], device: str) -> list[Stage]:
    """The stages that an image for a device is made of, the last one first."""
    name, line = "asha-ray", []
    while name in stages:
        line.append(stages[name])
        name = stages[name].base.replace("${DEVICE}", device)
    return line


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    found = subprocess.run(
        [hadolint, "--no-color", PATH], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_variant_is_built_from_the_lock(stages: dict[str, Stage], device: str) -> None:
    [image, libraries, wanted, system] = lineage(stages, device)
    assert system.base.startswith("python:")
    assert wanted.values("COPY") == ["pyproject.toml requirements.lock ./"]
    [install] = libraries.values("RUN")
    assert "--constraint requirements.lock --requirement wanted.txt" in install
    assert "--only-binary=:all:" in install, "or strangers' code would run while it is built"
    assert ("download.pytorch.org/whl/cpu" in install) == (device == "cpu")
    assert ("NVIDIA_VISIBLE_DEVICES" in str(libraries.values("ENV"))) == (device == "cuda")
    assert "--no-deps ." in str(image.values("RUN")), (
        "the package brings nothing that is not locked"
    )


def test_what_changes_often_comes_last(stages: dict[str, Stage]) -> None:
    """A change of the package must not install torch again."""
    for name in ("system", "wanted", "libraries-cpu", "libraries-cuda"):
        assert "asha_ray" not in str(stages[name].values("COPY"))


def test_the_list_of_what_is_wanted_is_pyproject(stages: dict[str, Stage], tmp_path: Path) -> None:
    [command] = stages["wanted"].values("RUN")
    code = re.fullmatch(r'python -c "(.*)" > wanted.txt', command, re.DOTALL)
    assert code
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    printed = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split("\n")[:-1] == PROJECT["dependencies"]
    for wanted in PROJECT["dependencies"]:
        name = re.split(r"[\[><=]", wanted)[0]
        assert name in LOCK, "a constraint that does not name it pins nothing"


def test_it_runs_as_nobody_special(stages: dict[str, Stage]) -> None:
    last = lineage(stages, "cuda")[0].instructions
    kinds = [kind for kind, _ in last]
    assert last[kinds.index("USER")][1] == "1000:1000", "Kubernetes can only judge numbers"
    assert set(kinds[kinds.index("USER") + 1 :]) == {"CMD"}
    [command] = stages["asha-ray"].values("CMD")
    assert json.loads(command)[0] in PROJECT["scripts"]
    assert "ENTRYPOINT" not in kinds, "Ray's launcher starts it with a command of its own"


def test_versions_agree(parser: DockerfileParser) -> None:
    text = parser.content
    [python] = re.findall(r"^ARG PYTHON_VERSION=(\S+)$", text, re.MULTILINE)
    assert python == PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    cluster = yaml.safe_load((INFRA / "kuberay" / "raycluster.yaml").read_text())
    assert cluster["spec"]["rayVersion"] == LOCK["ray"], "KubeRay decides by it what Ray can do"
    [tag] = {
        re.split(r"asha-ray:", image)[1]
        for file in (ROOT / "cluster.yaml", *(INFRA / "kuberay").glob("ray*.yaml"))
        for image in re.findall(r"^ *image: (?:&\w+ )?(\S*asha-ray:\S+)$", file.read_text(), re.M)
    }
    assert tag == f"{PROJECT['version']}-cuda"


def test_no_secret_is_baked_in(parser: DockerfileParser) -> None:
    for step in parser.structure:
        if step["instruction"] in {"ARG", "ENV"}:
            assert not SECRET.search(step["value"])


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a file out: the last pattern that fits decides."""
    out = False
    for pattern in patterns:
        kept = pattern.removeprefix("!")
        fits = any(
            fnmatch.fnmatch("/".join(path.split("/")[: depth + 1]), kept)
            for depth in range(path.count("/") + 1)
        )
        if kept.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, kept[3:]) for part in path.split("/"))
        out = not pattern.startswith("!") if fits else out
    return out


@pytest.fixture(scope="module")
def ignore() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_source_is_there_and_is_sent(stages: dict[str, Stage], ignore: list[str]) -> None:
    sources = {
        source
        for stage in stages.values()
        for value in stage.values("COPY")
        for source in value.split()[:-1]
        if not source.startswith("--")
    }
    assert sources >= {"pyproject.toml", "requirements.lock", "asha_ray"}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source, ignore), source


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "tests/farm.py",
        ".env",
        "auth_token",
        "cluster.yaml",
        "demo/v.mp4",
        "infra/README.md",
        "asha_ray/__pycache__/api.cpython-311.pyc",
    ],
)
def test_nothing_else_is_sent(ignore: list[str], path: str) -> None:
    assert ignored(path, ignore)


def test_scripts_for_the_nodes_can_be_run(stages: dict[str, Stage]) -> None:
    copied: list[Any] = [value for value in stages["asha-ray"].values("COPY") if "/bin" in value]
    assert copied == ["--chmod=0755 infra/node/drain-when-reclaimed /usr/local/bin/"]
