"""Commands of ours that a cluster shall run, and the code that goes there with them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import asha_ray
from asha_ray.farm.on_ray.dashboard import Dashboard

STOP_WAIT_S = 30
"""What Ray gives a driver that is stopped: it puts away what its workers have begun."""


def send_command(
    cluster: Dashboard,
    submission_id: str,
    words: Sequence[str],
    *,
    metadata: Mapping[str, str],
    variables: Mapping[str, str] | None = None,
    image: bool = False,
) -> None:
    """Have a cluster run `asha-ray WORDS…` beside its head.

    Args:
        cluster: where.
        submission_id: its name there, never used before.
        words: of the command.
        metadata: to be seen there.
        variables: of its environment, beside those that every command has.
        image: whether the cluster has asha-ray already; else this one goes there.

    Raises:
        ClusterError: if it is not taken.
    """
    cluster.submit(
        submission_id,
        # Ray gives it to a shell, so every word is quoted. -P: an asha_ray in the folder where the
        # head was started shall not stand before the one that is sent.
        shlex.join(["python", "-P", "-m", "asha_ray", *words]),
        metadata=metadata,
        variables={
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
            "PYTHONUNBUFFERED": "1",
            **(variables or {}),
        },
        package=None if image else Path(asha_ray.__file__).parent,
    )
