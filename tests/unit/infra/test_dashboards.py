"""Prometheus' file and Grafana's board: every query is one, of metrics that there are."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

import asha_ray
from tests.unit.infra import INFRA

SOURCE = Path(asha_ray.__file__).parent / "farm" / "on_ray" / "metrics.py"
METRICS = {
    str(ast.literal_eval(call.args[0])): call.func.id.lower()
    for call in ast.walk(ast.parse(SOURCE.read_text()))
    if isinstance(call, ast.Call)
    and isinstance(call.func, ast.Name)
    and call.func.id in ("Counter", "Gauge", "Histogram")
}
"""What the farm emits, as its source says: metric -> kind. Importing it would import Ray."""
TAGS = {"render", "job"}
# How Ray exports each kind: with a prefix, and a suffix to all that is counted.
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
EXPORTED = {
    f"ray_{name}{suffix}": kind for name, kind in METRICS.items() for suffix in SUFFIXES[kind]
}
BOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "asha-ray.json").read_text())
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}, {target['refId']}")
    for panel in BOARD["panels"]
    for target in panel["targets"]
]


def parsed(query: str) -> Any:
    """A query as Prometheus sees it, once Grafana has put its variables in."""
    for name, value in {
        "$__rate_interval": "1m",
        "$__range": "3h",
        "$render": ".*",
        "$job": ".*",
    }.items():
        query = query.replace(name, value)
    assert "$" not in query, "a variable that the board does not have"
    return promql_parser.parse(query)


def selectors(node: Any) -> list[tuple[Any, str]]:
    """Every vector selector below a node, with the function that is applied to it."""
    found: list[tuple[Any, str]] = []

    def visit(part: Any, function: str) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            found.append((part, function))
        elif isinstance(part, promql_parser.MatrixSelector):
            visit(part.vector_selector, function)
        elif isinstance(part, promql_parser.Call):
            for argument in part.args:
                visit(argument, part.func.name)
        else:
            for name in ("expr", "lhs", "rhs"):
                if (below := getattr(part, name, None)) is not None:
                    visit(below, "")

    visit(node, "")
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_asks_for_what_there_is(query: str) -> None:
    found = selectors(parsed(query))
    assert found
    for selector, function in found:
        kind = EXPORTED[selector.name]
        # A counter by itself begins anew with each driver, and a gauge has no rate.
        assert (function in {"rate", "increase"}) == (kind != "gauge"), selector.name
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels == TAGS, "the board's variables would not hold for it"
        for name in re.findall(r"by \(([^)]*)\)", query):
            assert set(name.split(", ")) <= TAGS | {"le"}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("sum(rate(ray_asha_frames_total[1m])", "unclosed left parenthesis"),
        ("rate(ray_asha_frames_total)", "expected type"),
    ],
)
def test_a_broken_query_would_be_seen(query: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(query)


def test_every_metric_is_on_the_board() -> None:
    shown = {
        selector.name for query in QUERIES for selector, _ in selectors(parsed(query.values[0]))
    }
    for name, kind in METRICS.items():
        assert shown & {f"ray_{name}{suffix}" for suffix in SUFFIXES[kind]}, name


def test_grafana_can_import_it() -> None:
    [source] = BOARD["__inputs"]
    assert (source["type"], source["pluginId"]) == ("datasource", "prometheus")
    uid = "${" + source["name"] + "}"
    parts = [*BOARD["panels"], *BOARD["templating"]["list"]]
    parts += [target for panel in BOARD["panels"] for target in panel["targets"]]
    assert {part["datasource"]["uid"] for part in parts} == {uid}
    assert BOARD["id"] is None, "a number would overwrite somebody else's board"
    needed = {part["id"] for part in BOARD["__requires"] if part["type"] == "panel"}
    assert needed == {panel["type"] for panel in BOARD["panels"]}


def test_variables_come_from_tags() -> None:
    variables = BOARD["templating"]["list"]
    assert {variable["name"] for variable in variables} == TAGS
    for variable in variables:
        metric, tag = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
        assert (EXPORTED[metric], tag) == ("gauge", variable["name"])


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    titles = [panel["title"] for panel in BOARD["panels"]]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(titles)


def test_prometheus_keeps_the_label_that_the_board_asks_for() -> None:
    config = yaml.safe_load((INFRA / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    # Ray's list of targets brings a label `job` too.
    assert job["honor_labels"] is True
    [files] = [source["files"] for source in job["file_sd_configs"]]
    assert files == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
