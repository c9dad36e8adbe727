"""What other runs have in hand, as their heartbeats tell it, which may be anybody's."""

import os
import platform
from datetime import UTC, datetime
from typing import Any

import pytest

from asha_ray.farm.archive.others import keys_in_hand, living_runs


def a_beat(**fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    here = {"host": platform.node(), "pid": os.getpid()}
    return {"run": "r", "state": "running", "time": now, **here, **fields}


def test_a_run_of_this_machine_whose_process_is_gone_is_none() -> None:
    """Else a driver that was killed would keep its shows for a minute."""
    assert living_runs([a_beat()])
    assert living_runs([a_beat(host="elsewhere", pid=2**22 + 1)])
    assert living_runs([a_beat(pid=2**22 + 1)]) == []


@pytest.mark.parametrize("pid", [2**70, -1, 0, True, "1", None, 1.5], ids=str)
def test_a_pid_that_is_none_ends_nobody(pid: Any) -> None:
    assert living_runs([a_beat(pid=pid)])


@pytest.mark.parametrize(
    ("in_hand", "keys"),
    [(["a", "b"], ["a", "b"]), (5, []), (None, []), ("abc", []), (["a", 5, None], ["a"]), ({}, [])],
    ids=str,
)
def test_keys_are_texts_in_a_list(in_hand: Any, keys: list[str]) -> None:
    assert keys_in_hand(a_beat(in_hand=in_hand)) == keys
