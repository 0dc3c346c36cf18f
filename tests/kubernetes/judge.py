"""What Kubernetes and the Prometheus Operator would refuse: `judge.py VERSION,… FILE…` prints one finding a line.

It is run by the Python of the tools' environment (`tests.kubernetes.tools`), which knows nothing of the gateway.
"""

import functools
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import yaml

HTTP_ROUTE = "gateway.networking.k8s.io/v1 HTTPRoute"
"""Judged by the Gateway API's own models, which are not Python."""
MODELS = "cloudcoil.models.prometheus_operator"
OPERATOR = "monitoring.coreos.com/v1"


def kubernetes_findings(document: dict[str, Any], version: str) -> Iterator[str]:
    """What this version of Kubernetes would refuse, unknown fields included."""
    validator = importlib.import_module("kubernetes_validate.utils")
    try:
        validator.validate(document, version, strict=True)
    except validator.ValidationError as error:
        yield f"{version}: {'.'.join(str(part) for part in error.path)}: {error.message}"
    except validator.SchemaNotFoundError:
        yield f"{version}: nothing is known of this kind"


def operator_findings(document: dict[str, Any]) -> Iterator[str]:
    """What the Prometheus Operator's resource definitions would refuse, and every field that they don't know."""
    # The package imports what is still alpha, too, and that takes as long as all the rest of this program.
    sys.modules.setdefault(f"{MODELS}.v1alpha1", types.ModuleType("v1alpha1"))
    models = importlib.import_module(f"{MODELS}.v1")
    pydantic = importlib.import_module("pydantic")
    try:
        model = getattr(models, document["kind"]).model_validate(document)
    except pydantic.ValidationError as error:
        yield from (f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors())
        return
    spec = model.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    yield from _lost(document["spec"], spec, "spec")


def _lost(given: Any, understood: Any, path: str) -> Iterator[str]:
    """Every field that the model has not taken over."""
    if isinstance(given, dict):
        for name, value in given.items():
            if not isinstance(understood, dict) or name not in understood:
                yield f"{path}.{name}: unknown field"
            else:
                yield from _lost(value, understood[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(understood, list):
        for number, (one, other) in enumerate(zip(given, understood, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")


def findings(document: dict[str, Any], versions: list[str]) -> Iterator[str]:
    """Everything that somebody would refuse in this object."""
    if f"{document['apiVersion']} {document['kind']}" == HTTP_ROUTE:
        return
    if document["apiVersion"] == OPERATOR:
        yield from operator_findings(document)
        return
    for version in versions:
        yield from kubernetes_findings(document, version)


def main(versions: str, *files: str) -> int:
    validator: Any = importlib.import_module("kubernetes_validate.utils")
    # Else it reads and parses the same megabytes again for every object.
    validator.schema_contents = functools.cache(validator.schema_contents)
    seen: set[str] = set()
    for file in files:
        with open(file, encoding="utf-8") as text:
            for document in yaml.load_all(text, Loader=yaml.CSafeLoader):
                if document is None or repr(document) in seen:
                    continue
                seen.add(repr(document))
                for finding in findings(document, versions.split(",")):
                    name = f"{document['kind']}/{document['metadata']['name']}"
                    sys.stdout.write(f"{file}: {name}: {finding}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
