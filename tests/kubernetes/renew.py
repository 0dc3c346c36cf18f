"""Everything that is derived from the chart or from the settings, and written anew by `make golden`.

Golden files are there to be read in a diff: a change of the chart shows what it does to the manifests.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from tests.kubernetes import schema, values_table
from tests.kubernetes.chart import (
    CHART,
    HERE,
    KEY,
    OBSERVABILITY,
    SETS,
    Manifest,
    kustomize,
    manifests,
    notes,
    rendered,
    shared_content,
)
from tests.project.repository import ROOT

KUSTOMIZE = ROOT / "deploy" / "kustomize"
GOLDEN = HERE / "golden"
ALERTS, DASHBOARD = "alerts.yaml", "dashboard.json"
NOTES = ("default", "trial", "production", "ingress")
OVERLAYS = ("trial", "production")

_HEAD = "# Rendered from the chart by make golden: change deploy/helm/mcp-gateway, not this.\n"
_HELM_ONLY = re.compile(r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by|namespace): .*\n", re.MULTILINE)
_CHECKSUMS = re.compile(r"^ +checksum/\w+: .*\n", re.MULTILINE)
_EMPTY_ANNOTATIONS = re.compile(r"^( *)annotations:\n(?!\1 )", re.MULTILINE)
_LINES = r"(?:(?!---\n).*\n)+"
_RULES = re.compile(rf"(kind: PrometheusRule\n(?:.*\n)*?spec:\n  ){_LINES}")
_DASHBOARD = re.compile(rf"(  mcp-gateway\.json: \|\n    ){_LINES}")
_SCRIPT = re.compile(r"(        - \|\n          )(?:.*\n)+?(?=      args:\n)")
_SOURCE = re.compile(r"^---\n# Source: mcp-gateway/templates/(.+)\n", re.MULTILINE)

# File of the kustomize folder → set of values, template of the chart.
_PARTS = {
    "base/deployment.yaml": ("default", "deployment.yaml"),
    "base/networkpolicy.yaml": ("default", "networkpolicy.yaml"),
    "base/pdb.yaml": ("default", "pdb.yaml"),
    "base/service.yaml": ("default", "service.yaml"),
    "base/serviceaccount.yaml": ("default", "serviceaccount.yaml"),
    "components/autoscaling/hpa.yaml": ("production", "hpa.yaml"),
    "components/httproute/httproute.yaml": ("production", "httproute.yaml"),
    "components/ingress/ingress.yaml": ("ingress", "ingress.yaml"),
    "components/monitoring/podmonitor.yaml": ("production", "monitor.yaml"),
    "components/monitoring/prometheusrule.yaml": ("production", "prometheusrule.yaml"),
    "components/redis/redis.yaml": ("trial", "redis.yaml"),
}


def _golden(name: str) -> str:
    """What helm prints, without what has a home of its own: the alerts, the dashboard, the script of the test."""
    text = _SCRIPT.sub(r"\1…\n", rendered(SETS[name]))
    return _DASHBOARD.sub(r"\1…\n", _RULES.sub(r"\1groups: []\n", text))


def _notes(name: str) -> str:
    return notes(SETS[name])


def _part(name: str) -> str:
    """One template's manifests as kustomize wants them: no namespace, no marks of Helm, no checksums."""
    values, template = _PARTS[name]
    pieces = _SOURCE.split(rendered(SETS[values]))
    found = [text for source, text in zip(pieces[1::2], pieces[2::2], strict=True) if source == template]
    text = _CHECKSUMS.sub("", _HELM_ONLY.sub(_kept, "---\n".join(found)))
    return _HEAD + _EMPTY_ANNOTATIONS.sub("", text)


def _kept(line: re.Match[str]) -> str:
    """A namespace that is no object's own stays: the one of the route's Gateway."""
    return "" if line[1] != "namespace" or line[0].startswith("  namespace") else line[0]


def _config_env() -> str:
    (found,) = [one for one in manifests(rendered(SETS["default"])) if one["kind"] == "ConfigMap"]
    return _HEAD + "".join(f"{name}={value}\n" for name, value in found["data"].items())


def overlay(name: str) -> list[Manifest]:
    """What kustomize builds of an overlay; the trial's with the key that its user puts there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(KUSTOMIZE, copy / "kustomize", ignore=shutil.ignore_patterns("secret.env"))
        shutil.copytree(OBSERVABILITY, copy / "observability", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "kustomize" / "overlays" / "trial" / "secret.env").write_text(f"GATEWAY_KEY={KEY}\n")
        return manifests(kustomize(copy / "kustomize" / "overlays" / name))


def _built(name: str) -> str:
    objects = overlay(name)
    for one in objects:
        if one["kind"] == "PrometheusRule":
            one["spec"] = {"groups": []}
        if one["metadata"]["name"].endswith("-dashboard"):
            one["data"] = {"mcp-gateway.json": "…\n"}
    return yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True, width=120)


def _files() -> dict[Path, Callable[[], str]]:
    files: dict[Path, Callable[[], str]] = {}
    for file in (ALERTS, DASHBOARD):
        files[CHART / "files" / file] = partial(shared_content, file)
    files[schema.PATH] = schema.document
    files[values_table.README] = values_table.document
    for name in SETS:
        files[GOLDEN / f"{name}.yaml"] = partial(_golden, name)
    for name in NOTES:
        files[GOLDEN / f"notes-{name}.txt"] = partial(_notes, name)
    files[KUSTOMIZE / "base" / "config.env"] = _config_env
    for name in _PARTS:
        files[KUSTOMIZE / name] = partial(_part, name)
    for name in OVERLAYS:
        files[GOLDEN / f"kustomize-{name}.yaml"] = partial(_built, name)
    return files


FILES = _files()
"""Every derived file, in an order in which each needs only earlier ones, with what must be in it."""


def main() -> int:
    for path, content in FILES.items():
        text = content()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
