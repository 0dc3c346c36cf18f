"""The wheel that people install: complete, and able to serve from an empty directory."""

import asyncio
import os
import signal
import site
import socket
import subprocess
import sys
import venv
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import gateway
from tests.project.repository import ROOT, files
from tests.support import http

KEY = "00112233445566778899aabbccddeeff"
START_SECONDS = 30
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command to its end; its output."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the backend of this environment: no network, no build environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bin_directory(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a fresh environment that has the wheel, and borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A .pth adds the directory and does not follow the .pth files in it: this environment's own gateway stays out.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    run(*PIP, "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return folder / "bin"


@asynccontextmanager
async def serving(command: Path, cwd: Path) -> AsyncGenerator[tuple[asyncio.subprocess.Process, int]]:
    """`mcp-gateway serve` on a free port with nothing but a key configured."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_KEY": KEY,
    }
    process = await asyncio.create_subprocess_exec(
        command, "serve", cwd=cwd, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process, port
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def first_answer(process: asyncio.subprocess.Process, port: int, target: str) -> http.Response:
    """The answer to a GET as soon as anybody listens."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, f"ended with {process.returncode} before it served"
            try:
                return await http.get(port, target)
            except ConnectionError:
                await asyncio.sleep(0.05)


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    package = {str(path.relative_to(ROOT)) for path in files() if path.is_relative_to(ROOT / "gateway")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("gateway/")}
    assert packed == package
    assert "gateway/py.typed" in packed
    assert [name for name in packed if name.endswith(".lua")]


def test_the_installed_command_knows_its_version(bin_directory: Path, tmp_path: Path) -> None:
    assert gateway.__version__ in run(bin_directory / "mcp-gateway", "--version", cwd=tmp_path)


def test_the_installed_package_is_not_this_checkout(bin_directory: Path, tmp_path: Path) -> None:
    where = run(bin_directory / "python", "-c", "import gateway; print(gateway.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bin_directory.parent)


async def test_the_installed_command_serves_and_stops_in_order(bin_directory: Path, tmp_path: Path) -> None:
    async with serving(bin_directory / "mcp-gateway", tmp_path) as (process, port):
        answer = await first_answer(process, port, f"/mcp_endpoint/health?key={KEY}")
        assert (answer.status, answer.json()["result"]["status"]) == (200, "success")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
