"""The Grafana dashboard and the alert rules, against what `/metrics` of a server with everything on gives."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse_text

from asyncline import Engine, Graph, Request, op
from asyncline.errors import RequestError
from asyncline.observe.leaks.sample import take
from asyncline.observe.prometheus import Metrics
from asyncline.observe.statistics import Statistics
from tests.observe.test_prometheus import Driver, gpus
from tests.serving import ROOT, serving

MONITORING = ROOT / "config" / "monitoring"
TARGET = {"job", "instance"}
"""Labels that Prometheus adds."""
ANY = re.compile(r"\$\w+")

Labels = dict[str, set[str]]
"""Values by label."""


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    shown = [target["expr"].replace("$__rate_interval", "1m") for panel in panels() for target in panel["targets"]]
    return [*shown, *(rule["expr"] for rule in rules())]


@op(cpu="inline")
def same(x: Any) -> Any:
    return x


def late() -> Iterator[Any]:
    """Families that are there only after a minute, with the leak watch, which takes its first sample then."""
    engine = Engine(Graph("g", same(Request())))
    metrics = Metrics(engine, Statistics(engine))
    metrics.leaks = SimpleNamespace(last=take(0.0, 0, 0, [], 0, 0), finding=None)  # type: ignore[assignment]
    yield from metrics.collect()


@pytest.fixture(scope="module")
def there() -> dict[str, Labels]:
    """What there is, by the name of a sample."""
    found: dict[str, Labels] = {}
    # Nobody listens there, and nothing is sent.
    otel = ("--set", "service.otel_endpoint=http://127.0.0.1:9", "--set", "service.otel_sample_ratio=0")
    with serving("workshop:graph", *otel) as server:
        assert server.post("/workshop", {"n": 1})[0] == 200
        assert server.post("/workshop", {"n": 7})[0] == 422  # out of paint
        assert server.post("/workshop", {"n": "?"})[0] == 400
        page = server.get("/metrics")[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", Driver())
        found |= {name: {"gpu": {number}} for name, number in gpus("cuda:1")}
    for family in (*parse_text(page), *late()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
            found.setdefault(sample.name, {})
    return found


def labels_of(expression: Any, there: dict[str, Labels]) -> set[str]:
    """Labels of what an expression gives.

    :raises AssertionError: it asks for a metric, a label or a value of one that is not there.
    """
    match expression:
        case promql.VectorSelector():
            assert expression.name in there, f"there is no metric {expression.name}"
            labels = there[expression.name]
            for matcher in expression.matchers.matchers:
                assert matcher.name in labels or matcher.name in TARGET, f"{expression.name} has no {matcher.name}"
                check_values(matcher.name, matcher.value, labels)
            return labels.keys() | TARGET
        case promql.MatrixSelector():
            return labels_of(expression.vector_selector, there)
        case promql.AggregateExpr():
            kept = set(expression.modifier.labels) if expression.modifier else set()
            missing = kept - labels_of(expression.expr, there)
            assert not missing, f"{expression.expr} has no {missing}"
            return kept
        case promql.Call():
            found = [labels_of(argument, there) for argument in expression.args]
            return set.union(set(), *found)
        case promql.BinaryExpr():
            sides = [labels_of(side, there) for side in (expression.lhs, expression.rhs)]
            # What has other labels never meets its counterpart, and the result is always empty.
            assert sides[0] == sides[1] or not all(sides), f"{expression}: {sides[0]} against {sides[1]}"
            return sides[0] | sides[1]
        case promql.NumberLiteral():
            return set()
    raise AssertionError(f"{expression}: a {type(expression).__name__}")


def codes() -> set[str]:
    """Of all errors that a request may end with."""
    known, waiting = {"ok", "product"}, [RequestError]
    while waiting:
        kind = waiting.pop()
        known.add(str(kind.code))
        waiting += kind.__subclasses__()
    return known


def check_values(label: str, values: str, labels: Labels) -> None:
    if ANY.fullmatch(values):
        return  # a choice on the dashboard
    known = codes() if label in ("code", "reason") and not labels[label] & {"timeline", "full"} else labels[label]
    assert set(values.split("|")) <= known, f"{label} is none of {values}"


@pytest.mark.parametrize("expression", expressions())
def test_what_is_shown_and_alerted_on_is_there_with_its_labels(expression: str, there: dict[str, Labels]) -> None:
    labels_of(promql.parse(expression), there)


@pytest.mark.parametrize(
    "wrong",
    [
        "asyncline_request_total",
        "sum by (stage) (rate(asyncline_requests_total[1m]))",
        'rate(asyncline_requests_total{reason="ok"}[1m])',
        'rate(asyncline_requests_total{code=~"timeout"}[1m])',
        'rate(asyncline_otel_requests_lost_total{reason="ratio"}[1m])',
        "asyncline_channel_depth / asyncline_in_flight_limit",
    ],
)
def test_what_is_not_there_is_found(wrong: str, there: dict[str, Labels]) -> None:
    with pytest.raises(AssertionError):
        labels_of(promql.parse(wrong), there)


def test_labels_in_what_an_alert_says_are_those_of_its_expression(there: dict[str, Labels]) -> None:
    for rule in rules():
        said = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert said and said <= labels_of(promql.parse(rule["expr"]), there), rule["alert"]


def test_every_trouble_that_is_counted_has_an_alert() -> None:
    alerted = set(re.findall(r"asyncline_\w+", " ".join(rule["expr"] for rule in rules())))
    troubles = {
        "loop_blocked", "workers_lost", "replicas_hung", "otel_requests_lost", "log_lines_left_out", "rejected",
        "connections_refused",
    }  # fmt: skip
    assert {f"asyncline_{name}_total" for name in troubles} | {"asyncline_leak", "asyncline_ready"} <= alerted


def test_the_dashboard_has_panels_side_by_side() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(places) == len(set(places)) > 10
    assert len({panel["id"] for panel in panels()}) == len(places)


def test_every_alert_has_a_name_of_its_own_and_a_severity() -> None:
    assert len(rules()) == len({rule["alert"] for rule in rules()}) > 8
    assert {rule["labels"]["severity"] for rule in rules()} <= {"info", "warning", "critical"}
