"""Which cluster a person works with: from options, the environment, or a file, in that order.

`~/.config/asha-ray/config.toml` holds what is always the same:

    address = "http://127.0.0.1:8265"
    token_file = "~/.ray/auth_token"
    work = "s3://bucket/work"

    [prices]
    currency = "USD"
    gpu_hour = 1.2
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from asha_ray.errors import SpecError
from asha_ray.spec import Prices, Uri, build

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where a Ray head's dashboard is, on the head itself or at the near end of a tunnel."""
MAX_FILE_BYTES = 64 << 10
DEFAULT_TOKEN_FILE = "~/.ray/auth_token"  # noqa: S105 (where it is, not what it is)


class ConfigFile(BaseModel):
    """What `config.toml` may hold.

    `image` says that the cluster's machines have asha-ray already, so that nothing is sent;
    `shared_disk` that local paths mean the same on all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[str, Field(min_length=1)] | None = None
    token_file: Annotated[str, Field(min_length=1)] | None = None
    work: Uri | None = None
    image: bool = False
    shared_disk: bool = False
    prices: Prices | None = None


@dataclass(frozen=True)
class Target:
    """The cluster and the work root that jobs go to.

    Attributes:
        address: of the cluster's dashboard, `http://host:port`.
        token: that opens it; None where none was found.
        work: the work root; None where none is known.
        image: whether the cluster has asha-ray already.
        shared_disk: whether local paths mean the same there.
        prices: what an hour costs.
        token_path: the file that held the token; None where it was no file.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    work: str | None = None
    image: bool = False
    shared_disk: bool = False
    prices: Prices | None = None
    token_path: Path | None = None

    def require_work(self) -> str:
        """The work root that jobs are kept in; a local one made absolute.

        Raises:
            SpecError: if none is known.
        """
        if self.work is None:
            raise SpecError(
                "jobs: no work root is known; give --work s3://…, ASHA_WORK, or work in the "
                "configuration file"
            )
        return self.work if "://" in self.work else str(Path(self.work).absolute())


def config_path() -> Path:
    """Where this user's file is."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "asha-ray" / "config.toml"


def read_config(path: Path | None = None) -> ConfigFile:
    """This user's file, or an empty one where there is none.

    Raises:
        SpecError: if it is no such file, naming every wrong field.
    """
    path = path or config_path()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SpecError(f"reading {path}: it is too large for a configuration; check it")
        return build(ConfigFile, tomllib.loads(path.read_text()), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"reading {path}: it is no TOML: {error}; mend it") from error
    except OSError as error:
        raise SpecError(f"reading {path}: {error.strerror}; check its permissions") from error


def find_target(
    address: str | None = None,
    token_file: str | None = None,
    work: str | None = None,
    *,
    image: bool | None = None,
    shared_disk: bool | None = None,
    needs_token: bool = True,
    environment: Mapping[str, str] | None = None,
    file: ConfigFile | None = None,
) -> Target:
    """The cluster that is meant: by what is given here, `ASHA_*`, Ray's own variables, the file.

    Args:
        address: of its dashboard.
        token_file: that holds its token.
        work: the work root.
        image: whether it has asha-ray already.
        shared_disk: whether local paths mean the same there.
        needs_token: whether a token that is named and cannot be read is an error.
        environment: variables; this process's own where None.
        file: the configuration; this user's where None.

    Raises:
        SpecError: if an address is none, a token cannot be read, or the file is wrong.
    """
    known = os.environ if environment is None else environment
    file = file or read_config()
    # RAY_ADDRESS may be a dashboard, or a cluster to join from within, which is another door.
    ray_address = known.get("RAY_ADDRESS", "")
    found = (
        address
        or known.get("ASHA_ADDRESS")
        or known.get("RAY_API_SERVER_ADDRESS")
        or (ray_address if ray_address.startswith("http") else "")
        or file.address
        or DEFAULT_ADDRESS
    )
    try:
        token, token_path = _token(token_file, known, file)
    except SpecError:
        if needs_token:
            raise
        token, token_path = None, None
    return Target(
        address=_address(found),
        token=token,
        work=work or known.get("ASHA_WORK") or file.work,
        image=file.image if image is None else image,
        shared_disk=file.shared_disk if shared_disk is None else shared_disk,
        prices=file.prices,
        token_path=token_path,
    )


def _address(text: str) -> str:
    whole = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(whole)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.username or parts.password:
        raise SpecError("--address: it holds a password; give http://host:port, and --token-file")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(
            f"--address {text[:80]!r}: give that of the cluster's dashboard, like {DEFAULT_ADDRESS}"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = f"{host}:{port}" if port else host
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"


def _token(
    given: str | None, known: Mapping[str, str], file: ConfigFile
) -> tuple[str | None, Path | None]:
    """A token, and the file that held it."""
    named = given or known.get("ASHA_TOKEN_FILE")
    if not named:
        if token := known.get("RAY_AUTH_TOKEN", "").strip():
            return token, None
        named = known.get("RAY_AUTH_TOKEN_PATH") or file.token_file
    path = Path(named or DEFAULT_TOKEN_FILE).expanduser()
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        if named is None:
            return None, None
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SpecError(f"reading token {path}: {reason}; check --token-file") from error
    if not token or any(character.isspace() for character in token):
        raise SpecError(f"reading token {path}: it holds no token; give the cluster's own file")
    return token, path
