"""The Helm chart as the tests see it: its files, its sets of values, and what helm makes of them."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.kubernetes.tools import CACHE, tools
from tests.project.repository import ROOT

CHART = ROOT / "deploy" / "helm" / "mcp-gateway"
EXAMPLES = ROOT / "deploy" / "helm" / "examples"
OBSERVABILITY = ROOT / "deploy" / "observability"
HERE = Path(__file__).parent
NAME = "mcp-gateway"
"""Release and namespace."""
KEY = "0123456789abcdef"
TOOL_SECONDS_MAX = 50
"""A tenth of a second each, on a machine that has nothing else to do."""

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ValueSet:
    """Values that the chart is rendered with."""

    name: str
    path: Path
    settings: tuple[str, ...] = ()
    """What the example leaves to the command line."""

    @property
    def arguments(self) -> list[str]:
        return ["--values", str(self.path), *(word for one in self.settings for word in ("--set", one))]


SETS = {
    one.name: one
    for one in (
        ValueSet("default", HERE / "values" / "default.yaml"),
        ValueSet("trial", EXAMPLES / "trial.yaml", (f"secret.key={KEY}",)),
        ValueSet("production", EXAMPLES / "production.yaml"),
        ValueSet("ingress", EXAMPLES / "ingress.yaml"),
        ValueSet("cluster-tls", EXAMPLES / "cluster-tls.yaml"),
        ValueSet("minimal", HERE / "values" / "minimal.yaml"),
        ValueSet("everything", HERE / "values" / "everything.yaml"),
    )
}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm, as on a machine that has never seen a cluster."""
    command = tools().helm
    assert command is not None
    return _ran([str(command), *arguments])


def kustomize(folder: Path) -> str:
    """Return what kustomize builds of a folder."""
    command = tools().kubectl
    assert command is not None
    ran = _ran([str(command), "kustomize", str(folder)])
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(CACHE), "KUBECONFIG": os.devnull}
    return subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, env=environment)


def rendered(values: ValueSet) -> str:
    """Return every manifest of the chart with these values, as helm prints them."""
    ran = helm("template", NAME, str(CHART), "--namespace", NAME, *values.arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def notes(values: ValueSet) -> str:
    """Return what helm tells the person who installs the chart with these values."""
    ran = helm("install", NAME, str(CHART), "--namespace", NAME, "--dry-run=client", *values.arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.partition("\nNOTES:\n")[2]


def refusal(*arguments: str) -> str:
    """Return why helm refuses these values."""
    ran = helm("template", NAME, str(CHART), "--namespace", NAME, *arguments)
    assert ran.returncode != 0, "the values were accepted"
    return ran.stderr


def manifests(text: str) -> list[Manifest]:
    """Return the objects in a text of YAML documents."""
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one is not None]


def shared_content(name: str) -> str:
    """Return a file of deploy/observability, which the chart has a copy of."""
    return (OBSERVABILITY / name).read_text(encoding="utf-8")
