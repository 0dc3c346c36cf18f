"""The overlays of kustomize are the chart with the same values, down to the field."""

import re
from typing import Any

import pytest

from tests.kubernetes.chart import NAME, Manifest
from tests.kubernetes.manifest_files import data_of, release
from tests.kubernetes.renew import OVERLAYS

HELM_ONLY = ("helm.sh/chart", "app.kubernetes.io/managed-by")
HASHED = re.compile(rf"{NAME}-[a-z0-9]{{10}}")
"""A generator's name: kustomize's answer to a checksum in the pod's annotations."""


def plain(value: Any) -> Any:
    """A manifest without what only one of the two tools puts there; what is found by its name, in order of names."""
    if isinstance(value, dict):
        kept = {key: plain(one) for key, one in value.items() if key not in HELM_ONLY and "checksum/" not in key}
        return {key: one for key, one in kept.items() if (key, one) != ("annotations", {})}
    if isinstance(value, list):
        items = [plain(one) for one in value]
        is_keyed = all(isinstance(one, dict) and "name" in one for one in items)
        return sorted(items, key=lambda one: str(one["name"])) if is_keyed else items
    return HASHED.sub(NAME, value) if isinstance(value, str) else value


def objects(name: str) -> dict[tuple[str, str], Manifest]:
    """Kind and name → object. The namespace is kustomize's alone, the pod of `helm test` helm's."""
    found: dict[tuple[str, str], Manifest] = {}
    for one in release(name):
        is_hook = "helm.sh/hook" in one["metadata"].get("annotations", {})
        if one["kind"] != "Namespace" and not is_hook:
            content = {"data": data_of(one)} if one["kind"] in ("ConfigMap", "Secret") else {}
            shown = plain({key: value for key, value in one.items() if key != "stringData"} | content)
            found[one["kind"], shown["metadata"]["name"]] = shown
    return found


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two objects differ, in a form that a person can read."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [found for key in keys for found in differences(one.get(key), other.get(key), f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found for n, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{path}[{n}]")
        ]
    return [] if one == other else [f"{path}: {one!r} ≠ {other!r}"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_the_chart_with_the_same_values(name: str) -> None:
    chart, overlay = objects(name), objects(f"kustomize-{name}")
    assert overlay.keys() == chart.keys()
    assert [differences(overlay[key], one) for key, one in chart.items() if overlay[key] != one] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_another_configuration_rolls_the_pods(name: str) -> None:
    """Its name has a hash in it, and the Deployment names it."""
    named = {one["metadata"]["name"] for one in release(f"kustomize-{name}") if one["kind"] == "ConfigMap"}
    assert [one for one in named if HASHED.fullmatch(one)]
