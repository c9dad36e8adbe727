"""The rooms of DESIGN section 2: imports go downward only, and some packages have one door."""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

import asha_ray

ROOT = Path(asha_ray.__file__).parent
BASE = {"spec", "values", "progress", "errors", "ffmpeg", "scratch", "faults"}
PURE = {"audio", "vae", "motion", "video", "storage"}

MAY_IMPORT = {
    "errors": set(),
    "progress": {"errors"},
    "scratch": set(),
    "faults": set(),
    "ffmpeg": {"errors"},
    "values": {"errors"},
    "spec": {"errors", "values"},
    **dict.fromkeys(PURE, BASE),
    "showcase": set(),
    "farm": BASE | PURE | {"showcase", "config", "__init__"},
    "config": {"errors", "spec"},
    "api": BASE | PURE | {"farm", "config"},
    "__init__": {"api", "errors", "spec"},
    "cli": {"__init__", "api", "farm"} | BASE | PURE,
    "__main__": {"cli"},
}
"""Room -> rooms that its modules may import beside their own; a lazy import counts as any other."""

ONE_DOOR = {
    "ray": {"farm"},
    "typer": {"cli"},
    "click": {"cli"},
    "boto3": {"storage"},
    "botocore": {"storage"},
    "mypy_boto3_s3": {"storage"},
    "torch": {"audio", "vae", "video", "farm"},
    "av": {"audio", "video"},
    "librosa": {"audio"},
    "numba": {"audio", "video"},
    "soundfile": {"audio", "farm"},
    "matplotlib": {"audio"},
    "imageio_ffmpeg": {"ffmpeg"},
    "requests": {"farm"},
}
"""Third-party package -> the rooms that may import it."""

ALLOWED = {
    ("farm/training/train.py", "boto3"),  # asks boto3 which endpoint Ray Train's pyarrow shall use
    ("farm/tools/doctor.py", "boto3"),  # reports how credentials were found
    ("values.py", "torch"),  # the name of a type, under TYPE_CHECKING
}


class Import(NamedTuple):
    module: str
    line: int
    for_types: bool
    at_once: bool


@functools.cache
def _modules() -> tuple[Path, ...]:
    return tuple(sorted(ROOT.rglob("*.py")))


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


@functools.cache
def _imports(path: Path) -> tuple[Import, ...]:
    tree = _tree(path)
    type_blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    ]
    for_types = {id(child) for block in type_blocks for child in ast.walk(block)}
    at_once = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            modules = [node.module or ""]
            if node.module and (ROOT.parent / node.module.replace(".", "/")).is_dir():
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            found.append(Import(module, node.lineno, id(node) in for_types, id(node) in at_once))
    return tuple(found)


@functools.cache
def _rooms() -> frozenset[str]:
    return frozenset(_room(path) for path in _modules())


def _room_of_import(module: str) -> str:
    _, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if room in _rooms() else "__init__"


def test_every_room_has_its_rule():
    """A new room without a rule would be free to import anything."""
    assert _rooms() <= set(MAY_IMPORT), f"no rule for {_rooms() - set(MAY_IMPORT)}"


def test_imports_go_downward_only():
    wrong = []
    for path in _modules():
        room = _room(path)
        for found in _imports(path):
            if found.module.partition(".")[0] != "asha_ray":
                continue
            target = _room_of_import(found.module)
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(f"{_name(path)}:{found.line} in {room} imports {found.module}")
    assert not wrong, "\n".join(wrong)


def test_in_the_farm_ray_has_its_doors_too():
    """What composes the stages works with Ray and without."""
    doors = {
        path.parent.name
        for path in _modules()
        for found in _imports(path)
        if found.module.partition(".")[0] == "ray"
    }
    assert doors == {"on_ray", "training"}


def test_each_third_party_package_has_its_doors():
    wrong = []
    for path in _modules():
        for found in _imports(path):
            package = found.module.partition(".")[0]
            doors = ONE_DOOR.get(package)
            if doors is None or _room(path) in doors:
                continue
            allowed = (_name(path), package) in ALLOWED
            if not (allowed and (found.for_types or package == "boto3")):
                wrong.append(f"{_name(path)}:{found.line} imports {found.module}")
    assert not wrong, "\n".join(wrong)


def test_there_is_no_exception_that_nothing_needs():
    """Exceptions that outlive their reason let the next one slip in unseen."""
    used = {
        (_name(path), found.module.partition(".")[0])
        for path in _modules()
        for found in _imports(path)
    }
    assert used >= ALLOWED, f"no longer needed: {ALLOWED - used}"


def test_imports_made_at_once_form_no_circle():
    """Modules of one room may import each other, but then each must be importable first."""
    graph: dict[str, set[str]] = {}
    for path in _modules():
        name = "asha_ray." + _name(path).removesuffix(".py").replace("/", ".")
        modules = {found.module for found in _imports(path) if found.at_once}
        graph[name] = {module for module in modules if module.startswith("asha_ray.")}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle of imports: {' -> '.join((*trail, name))}"
        if name in done:
            return
        for target in graph.get(name, ()):
            walk(target, (*trail, name))
        done.add(name)

    for name in graph:
        walk(name, ())


WITHOUT_TORCH = (
    *("api", "cli/main", "farm/archive/archive", "farm/archive/ask", "farm/archive/finish"),
    *("farm/archive/hear", "farm/jobs/drive", "farm/jobs/submit", "farm/listening/features"),
    *("farm/listening/separate", "farm/on_ray/crew", "farm/on_ray/executor", "farm/on_ray/helpers"),
    *("farm/on_ray/share", "farm/rendering/render"),
)
"""Where processes begin that hear, join, wait or submit, and that ask others to make pictures."""


def test_what_computes_no_pictures_brings_no_torch_along():
    """Each of such processes would take two CPU seconds and 200 MB more, on every node."""
    names = {"asha_ray." + _name(path)[:-3].replace("/", "."): path for path in _modules()}
    names |= {name.removesuffix(".__init__"): path for name, path in names.items()}

    def chain_to_torch(name: str, trail: tuple[str, ...], seen: set[str]) -> tuple[str, ...]:
        seen.add(name)
        for found in _imports(names[name]):
            if not found.at_once:
                continue
            parts = found.module.split(".")
            if "torch" in parts:  # safetensors.torch brings it too
                return (*trail, name, found.module)
            for end in range(2, len(parts) + 1):  # with each package that it lies in
                target = ".".join(parts[:end])
                if target in names and target not in seen:
                    chain = chain_to_torch(target, (*trail, name), seen)
                    if chain:
                        return chain
        return ()

    for module in WITHOUT_TORCH:
        chain = chain_to_torch("asha_ray." + module.replace("/", "."), (), set())
        assert not chain, " imports ".join(chain)
    # Or it would see nothing for ever.
    assert chain_to_torch("asha_ray.farm.rendering.worker", (), set())


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
UNSAFE_CALLS = {"torch.load", "torch.save", "os.system", "os.popen", "eval", "exec", "yaml.load"}


def _danger_of(call: ast.Call) -> str:
    """What a call does that nothing here may do, or nothing."""
    name = ast.unparse(call.func)
    given = {
        item.arg: item.value for item in call.keywords if item.arg in ("shell", "allow_pickle")
    }
    if name in UNSAFE_CALLS:
        return f"calls {name}"
    if "shell" in given and ast.unparse(given["shell"]) != "False":
        return "starts a shell"
    if name in {"np.load", "np.save", "numpy.load", "numpy.save"} and (
        "allow_pickle" not in given or ast.unparse(given["allow_pickle"]) != "False"
    ):
        return "may pickle"
    return ""


def test_nothing_is_unpickled_and_no_shell_is_started():
    """Models, features and media come from strangers."""
    wrong = []
    for path in _modules():
        for found in _imports(path):
            if found.module.partition(".")[0] in UNSAFE_MODULES:
                wrong.append(f"{_name(path)}:{found.line} imports {found.module}")
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and (danger := _danger_of(node)):
                wrong.append(f"{_name(path)}:{node.lineno} {danger}")
    assert not wrong, "\n".join(wrong)


def test_every_danger_is_seen():
    """A rule that sees nothing would hold for ever."""
    for text, danger in {
        "torch.load(path)": "calls torch.load",
        "subprocess.run(command, shell=True)": "starts a shell",
        "np.load(path)": "may pickle",
        "np.load(path, allow_pickle=True)": "may pickle",
        "np.load(path, allow_pickle=False)": "",
        "subprocess.run(command, shell=False)": "",
    }.items():
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        assert _danger_of(call) == danger, text
