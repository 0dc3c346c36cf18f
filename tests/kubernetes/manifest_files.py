"""The committed manifests as objects: golden files of the chart, and what kustomize builds."""

import base64
import functools
from collections.abc import Iterator
from typing import Any

from tests.kubernetes.chart import SETS, Manifest, manifests
from tests.kubernetes.renew import GOLDEN, OVERLAYS

RELEASES = [*SETS, *(f"kustomize-{name}" for name in OVERLAYS)]
"""Everything that somebody may install."""


@functools.cache
def release(name: str) -> list[Manifest]:
    """The objects of one of them. They are shared: don't change them."""
    return manifests((GOLDEN / f"{name}.yaml").read_text(encoding="utf-8"))


def of_kind(name: str, *kinds: str) -> list[Manifest]:
    return [one for one in release(name) if one["kind"] in kinds]


def deployment(name: str) -> Manifest:
    (found,) = of_kind(name, "Deployment")
    return found


def container(name: str) -> dict[str, Any]:
    """The gateway's container."""
    (found,) = deployment(name)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def pods(name: str) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Name, labels and spec of every pod, the one of `helm test` included."""
    for one in of_kind(name, "Deployment", "StatefulSet"):
        template = one["spec"]["template"]
        yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    for one in of_kind(name, "Pod"):
        yield one["metadata"]["name"], one["metadata"]["labels"], one["spec"]


def selected(name: str, selector: dict[str, Any]) -> list[str]:
    """The names of the pods that a selector finds."""
    return [pod for pod, labels, _ in pods(name) if matches(selector, labels)]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions)
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(one["key"]) in one["values"] for one in expressions
    )


def environment(name: str) -> dict[str, str]:
    """What the gateway finds in its environment; without the Secret, if that is made by hand."""
    found: dict[str, str] = {}
    for source in container(name)["envFrom"]:
        [(kind, reference)] = source.items()
        wanted = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind]
        for one in of_kind(name, wanted):
            if one["metadata"]["name"] == reference["name"]:
                found |= data_of(one)
    return found | {one["name"]: one["value"] for one in container(name)["env"] if "value" in one}


def data_of(one: Manifest) -> dict[str, str]:
    """What is in a ConfigMap or a Secret, in plain text."""
    if one["kind"] == "ConfigMap":
        return dict(one["data"])
    encoded: dict[str, str] = one.get("data", {})
    written: dict[str, str] = one.get("stringData", {})
    return {name: base64.b64decode(value).decode() for name, value in encoded.items()} | written


def pause_seconds(name: str) -> int:
    """How long preStop waits."""
    lifecycle = container(name).get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
    seconds = lifecycle["preStop"]["sleep"]["seconds"]
    assert isinstance(seconds, int)
    return seconds
