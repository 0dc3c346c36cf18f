"""What the image will be, as far as that is known without a builder: its steps are played, and its gateway runs.

That an image was built from them is not shown here.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gateway
from tests.project.locks import BUILD, RUN, locked, normal
from tests.project.repository import ROOT


@pytest.fixture
def wheels() -> Path:
    """A folder with the files of the lock that fit this Python; kept for the next time, until the lock changes."""
    digest = hashlib.sha256(RUN.read_bytes() + BUILD.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = ROOT / "build" / f"wheels-{digest}"
    if not folder.is_dir():
        coming = folder.with_name(f"{folder.name}.{os.getpid()}")
        for lock in (RUN, BUILD):
            download(lock, coming)
        for old in (ROOT / "build").glob("wheels-*"):
            if old != coming:
                shutil.rmtree(old)
        coming.rename(folder)
    return folder


def download(lock: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    more = ["--only-binary", ":all:", "--requirement", str(lock), "--dest", str(folder)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr


def needs_mounts(folder: Path) -> None:
    """Skip, and say why, where an image's file system can't be played: on other systems, and without root's rights."""
    memory = 'mount -t tmpfs none . && cd "$PWD" && mkdir a b c'
    overlay = f"{memory} && mount -t overlay none -o lowerdir=/,upperdir=a,workdir=b c"
    try:
        tried = subprocess.run(["unshare", "--mount", "sh", "-c", overlay], cwd=folder, capture_output=True, timeout=20)
        is_possible = tried.returncode == 0 and shutil.which("setpriv") is not None
    except OSError:
        is_possible = False
    if not is_possible:
        pytest.skip("no root, or no overlay file system: the steps of deploy/Dockerfile are not played here")


def replayed(folder: Path, wheels: Path) -> dict[str, Any]:
    program = [sys.executable, "-m", "tests.edge.replay", str(folder), str(wheels)]
    command = ["unshare", "--mount", "--fork", "--kill-child", *program]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-3000:]
    found: dict[str, Any] = json.loads(played.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(300)
def test_the_images_steps_make_a_gateway_that_serves_without_rights_on_a_read_only_root(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    needs_mounts(tmp_path)
    found = replayed(tmp_path, request.getfixturevalue("wheels"))

    # The health check of the image tells before, during and after apart.
    assert (found["healthy_before"], found["healthy"], found["healthy_after"]) == (False, True, False), found["output"]
    # It is process 1: SIGTERM reaches it, and it ends in order.
    assert (found["status"]["Name"], found["exit_code"]) == ("mcp-gateway", 0), found["output"]
    assert found["status"]["Uid"] == "10001 10001 10001 10001"
    assert {int(found["status"][name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert found["status"]["NoNewPrivs"] == "1"
    # Nothing can be written but the volume, and there is nothing but the key that it made for itself.
    assert found["can_write"] == ["/data"]
    assert found["written"] == [".gateway-key"]
    # What is installed is the lock and the gateway: no pip, nothing of the build.
    installed = dict(name.rsplit("-", 1) for name in found["packages"])
    expected = {name: one.version for name, one in locked(RUN).items()} | {"xiaozhi-mcp-gateway": gateway.__version__}
    assert {normal(name): version for name, version in installed.items()}.items() <= expected.items()
    assert expected.keys() - {normal(name) for name in installed} <= {"async-timeout"}
