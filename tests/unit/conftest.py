"""The order of the unit tests."""

import pytest

LISTENERS = (
    "tests/unit/audio/",
    "tests/unit/showcase/",
    "tests/unit/farm/listening/",
    "tests/unit/farm/tools/test_forecast.py",
)
"""What finds beats: librosa takes each process a second or more to import for that."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep these together: of processes that share the tests, one gets them all."""
    items.sort(key=lambda item: not item.nodeid.startswith(LISTENERS))
