#!/usr/bin/env python3
"""Judges deploy/dashboards: what panels and alerts ask for is what broker and enclave export, and all of it is shown.

What is exported is read from the sources. One line a problem, and exit 1 if there is any; else one line.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "deploy/dashboards"
SOURCES = {"broker": "vault-broker/src/metrics.rs", "enclave": "vault-enclave/src/serve/metrics.rs"}
SUFFIXES = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
# Labels that Prometheus adds.
ADDED = {"instance", "job", "le"}


def main() -> int:
    exported = {name: metrics(ROOT / path) for name, path in SOURCES.items()}
    problems, panels = [], 0
    for name, metric in exported.items():
        board = json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8"))
        panels += len(board["panels"])
        problems += [f"{name}.json: {problem}" for problem in judge(board, metric)]
    both = exported["broker"] | exported["enclave"]
    alerts = (DASHBOARDS / "alerts.yaml").read_text(encoding="utf-8")
    # on one line, or folded on deeper ones
    rules = [folded or line for _, folded, line in re.findall(r"^( +)expr: (?:>-\n((?:\1  .*\n)+)|(.*)$)", alerts, flags=re.M)]
    if len(rules) != len(re.findall(r"^ +- alert: ", alerts, flags=re.M)):
        problems.append("alerts.yaml: an alert whose expr is not read here")
    for rule in rules:
        problems += [f"alerts.yaml: {problem}" for problem in unknown(rule, both)]
    for problem in problems:
        print(f"dashboards: {problem}")
    if not problems:
        print(f"dashboards: {panels} panels and {len(rules)} alerts show and ask for what {len(both)} series have")
    return 1 if problems or not rules else 0


def metrics(path: pathlib.Path) -> dict[str, set[str]]:
    """Series that a source file registers, each with its labels."""
    text = path.read_text(encoding="utf-8")
    (prefix,) = re.findall(r'Registry::with_prefix\("(\w+)"\)', text)
    structs = {name: set(re.findall(r"^    (\w+):", body, flags=re.M)) for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\}", text, flags=re.M | re.S)}
    kinds = {field: (kind, labels) for field, labels, kind in re.findall(r"^    (\w+): (?:Family<(\w+), )?(Counter|Gauge|Histogram)>?,", text, flags=re.M)}
    registered = re.findall(r'\.register\("(\w+)", "[^"]*", (?:\w+\.)?(\w+)\.clone\(\)\)', text)
    if not registered or len(registered) != text.count(".register("):
        raise SystemExit(f"dashboards: {path}: register() has a form that is not read here")
    series = {}
    for name, field in registered:
        kind, labels = kinds[field]
        for suffix in SUFFIXES[kind]:
            series[f"{prefix}_{name}{suffix}"] = structs.get(labels, set())
    return series


def judge(board, exported):
    ids = [panel["id"] for panel in board["panels"]]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    if "datasource" not in [variable["name"] for variable in board["templating"]["list"] if variable["type"] == "datasource"]:
        yield "no variable `datasource`"
    shown = set()
    for panel in board["panels"]:
        for part in [panel, *panel["targets"]]:
            if part["datasource"]["uid"] != "${datasource}":
                yield f"panel {panel['id']}: a data source of one installation"
        for target in panel["targets"]:
            yield from (f"panel {panel['id']}: {problem}" for problem in unknown(target["expr"], exported))
            shown |= set(names(target["expr"]))
    for query in re.findall(r"label_values\((\w+),", json.dumps(board["templating"])):
        if query not in exported:
            yield f"variable of {query}, which nobody exports"
    for name in sorted(set(exported) - shown):
        yield f"{name} is shown nowhere"


def names(expr: str) -> list[str]:
    return re.findall(r"\bmvault_\w+", expr)


def unknown(expr: str, exported):
    """Series, and labels of theirs, that nobody exports."""
    if not names(expr):
        yield f"no metric of mvault in: {expr}"
    known = set(ADDED)
    for name in names(expr):
        if name not in exported:
            yield f"{name} is exported by nobody"
        known |= exported.get(name, set())
    used = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expr))
    for labels in re.findall(r"\bby \(([^)]*)\)", expr):
        used |= {label.strip() for label in labels.split(",")}
    for label in sorted(used - known):
        yield f"label {label} is on none of its metrics: {expr}"
    if expr.count("(") != expr.count(")"):
        yield f"brackets do not match: {expr}"


if __name__ == "__main__":
    sys.exit(main())
