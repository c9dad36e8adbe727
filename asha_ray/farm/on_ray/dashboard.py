"""A Ray cluster from outside, by its dashboard: the Jobs API, and what nodes have, in our words."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
from packaging.version import InvalidVersion, Version

from asha_ray.errors import ClusterError
from asha_ray.farm.on_ray import runtime  # noqa: F401 (sets what Ray reads when it is imported)

import ray  # isort: skip
from ray.dashboard.modules.dashboard_sdk import SubmissionClient  # isort: skip
from ray.exceptions import AuthenticationError  # isort: skip
from ray.job_submission import JobSubmissionClient  # isort: skip

for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # else it tells of each package it sends

MIN_RAY, MIN_PYTHON = Version("2.60"), Version("3.11")
RAY_HERE: str = ray.__version__
TIMEOUT_S = 20.0
UPLOAD_TIMEOUT_S = 300.0
MAX_NODES = 10_000
SERVER_ERROR = 500
MAX_WORDS = 300
"""Of a cluster's own words that are repeated."""
UNNAMED_NODE = re.compile(r"\bnode_[0-9a-f]{56}\b")
"""What Ray calls the kind of a node that no autoscaler has started."""


@dataclass(frozen=True)
class RayJob:
    """What Ray says of a submission.

    Attributes:
        status: `PENDING`, `RUNNING`, `STOPPED`, `SUCCEEDED` or `FAILED`.
        message: why, in Ray's words.
    """

    status: str
    message: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Versions:
    """What a cluster runs."""

    ray: str
    python: str


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own client, which waits for no answer for ever and asks no environment for whom."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._client_ray_version = ray.__version__
        SubmissionClient.__init__(self, address=address, headers=headers)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        timeout_s = UPLOAD_TIMEOUT_S if method == "PUT" else TIMEOUT_S
        # An answer that leads elsewhere would be given the token.
        options = {"timeout": timeout_s, "allow_redirects": False, **options}
        answer: requests.Response = super()._do_request(method, endpoint, **options)
        return answer


class Dashboard:
    """A cluster's dashboard.

    Args:
        address: `http://host:port`.
        token: that opens it.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address, self._has_token = address, token is not None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with self._explained("reaching"):
            self._client = _Client(address, headers)

    def wants_token(self) -> bool:
        """Whether nobody gets in without a token; that much anybody may ask.

        Raises:
            ClusterError: if it cannot be reached.
        """
        mode = self._get("/api/authentication_mode").get("authentication_mode", "disabled")
        return bool(mode != "disabled")

    def versions(self) -> Versions:
        """What it runs.

        Raises:
            ClusterError: if it cannot be reached, refuses us, or is too old.
        """
        found = str(self._get("/api/version").get("ray_version", ""))
        if _version(found) is None:
            raise ClusterError(
                f"reaching the Ray cluster at {self.address}: what answers there is no Ray "
                "dashboard; check --address (the dashboard's port is 8265 by default)"
            )
        metadata = self._data("/api/v0/cluster_metadata")
        versions = Versions(found, str(metadata.get("pythonVersion", "")))
        for name, version, least in (
            ("Ray", _version(versions.ray), MIN_RAY),
            ("Python", _version(versions.python), MIN_PYTHON),
        ):
            if version is not None and version < least:
                raise ClusterError(
                    f"using the Ray cluster at {self.address}: it runs {name} {version}, and "
                    f"asha-ray needs {least} or newer; start it from a newer image"
                )
        return versions

    def nodes(self) -> list[Mapping[str, float]]:
        """What each living node has in all: `CPU`, `GPU`, `memory` in bytes …

        Raises:
            ClusterError: if it cannot be asked.
        """
        query = "filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        found = self._data(f"/api/v0/nodes?detail=1&limit={MAX_NODES}&{query}")
        return [dict(node.get("resources_total") or {}) for node in found.get("result") or []]

    def can_grow(self) -> bool:
        """Whether an autoscaler may add nodes that are not there yet."""
        status = self._status("")
        if isinstance(status, dict):
            # Ray looks at nodes in this way also where nothing adds any.
            report = status.get("autoscalerReport") or {}
            kinds = (report.get("nodeTypeMapping") or {}).values()
            return any(not UNNAMED_NODE.fullmatch(str(kind)) for kind in kinds)
        # The newer autoscaler tells people alone.
        text = self._status("?format=1")
        return (
            isinstance(text, str) and "Autoscaler status" in text and not UNNAMED_NODE.search(text)
        )

    def _status(self, query: str) -> Any:
        return (self._get(f"/api/cluster_status{query}").get("data") or {}).get("clusterStatus")

    def submit(
        self,
        submission_id: str,
        command: str,
        metadata: Mapping[str, str],
        variables: Mapping[str, str],
        package: Path | None,
    ) -> None:
        """Give it something to run.

        Args:
            submission_id: its name, never used before.
            command: that runs beside the head.
            metadata: to be seen there.
            variables: of its environment, and its workers'.
            package: a Python package that every worker shall have; it goes there once.

        Raises:
            ClusterError: if it is not taken.
        """
        environment: dict[str, Any] = {"env_vars": dict(variables)}
        if package is not None:
            environment |= {"py_modules": [str(package)], "excludes": ["**/__pycache__"]}
        with self._explained("submitting to"):
            self._client.submit_job(
                entrypoint=command,
                submission_id=submission_id,
                metadata=dict(metadata),
                runtime_env=environment,
            )

    def stop(self, submission_id: str) -> bool:
        """Ask what was submitted to end; whether it was running."""
        with self._explained("stopping a job on"):
            return bool(self._client.stop_job(submission_id))

    def find(self, submission_id: str) -> RayJob | None:
        """What it says of a submission; None where it knows none of that name."""
        with self._explained("asking"):
            answer = self._client._do_request("GET", f"/api/jobs/{quote(submission_id)}")  # noqa: SLF001
            if answer.status_code == requests.codes.not_found:
                return None
            answer.raise_for_status()
            data = answer.json()
        return RayJob(str(data.get("status", "")), _brief(str(data.get("message") or "")))

    def log(self, submission_id: str) -> str:
        """All that a submission's driver has said, and what Ray says of its start."""
        with self._explained("asking"):
            return str(self._client.get_job_logs(submission_id))

    def _data(self, path: str) -> Mapping[str, Any]:
        """An answer of Ray's state API, whatever wraps it."""
        data = self._get(path).get("data") or {}
        inner = data.get("result") if isinstance(data, dict) else None
        return inner if isinstance(inner, dict) else data

    def _get(self, path: str) -> Mapping[str, Any]:
        with self._explained("asking"):
            answer = self._client._do_request("GET", path)  # noqa: SLF001 (it opens the door)
            if answer.status_code >= SERVER_ERROR:
                answer.raise_for_status()
            if answer.status_code != requests.codes.ok:
                return {}
        try:
            data = answer.json()
        except ValueError:  # a page for people, of whatever else it is that answers
            return {}
        return data if isinstance(data, dict) else {}

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        where = f"{doing} the Ray cluster at {self.address}"
        try:
            yield
        except AuthenticationError as error:
            remedy = (
                "it refuses this token; give the file with its own, --token-file"
                if self._has_token
                else "it wants a token; give the file that holds it, --token-file"
            )
            raise ClusterError(f"{where}: {remedy}") from error
        except (requests.ConnectionError, requests.Timeout, ConnectionError) as error:
            raise ClusterError(
                f"{where}: nobody answers; check --address, that the cluster is up, and that the "
                "tunnel to it is open"
            ) from error
        except (requests.RequestException, RuntimeError, ValueError, KeyError) as error:
            raise ClusterError(f"{where}: {_brief(str(error))}; look into its dashboard") from error


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _brief(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MAX_WORDS else f"… {words[-MAX_WORDS:]}"
