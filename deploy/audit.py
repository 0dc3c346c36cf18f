"""`make audit`: asks whether any package of the image is known to be vulnerable.

pip-audit reads the lock files and asks for PyPI's advisories. Some mirrors have none of these, and to them nothing is
known of anything, so a package that is known to be vulnerable is asked about first. Where the data can't be had, one
line says so and nothing is judged: with `must` (the pipeline) that is a failure, else not, so that work goes on
without a network.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("deploy/requirements.lock", "deploy/requirements-build.lock")
TOOL = ROOT / "build" / "audit"
PIP_AUDIT = "pip-audit>=2.10,<3"
KNOWN = "jinja2==2.4.1"
"""Advisories about it are many, and a decade old."""
SECONDS = 300


class Unjudged(Exception):
    """There is no data; the text says why."""


def main(arguments: list[str]) -> int:
    """Return 0 if nothing is known against any package, else 1."""
    try:
        install()
        known = TOOL.parent / "audit-known.txt"
        known.parent.mkdir(exist_ok=True)
        known.write_text(f"{KNOWN}\n")
        if not holes(known, "--no-deps"):
            raise Unjudged(f"the data knows nothing against {KNOWN}")
        return max([judged(ROOT / lock) for lock in LOCKS])
    except Unjudged as trouble:
        say(f"!!! 依赖审计未进行 / AUDIT SKIPPED, nothing was judged: {trouble}", sys.stderr)
        return 1 if "must" in arguments else 0


def install() -> None:
    """Put pip-audit into a directory of its own."""
    if not (TOOL / "pip_audit").is_dir():
        words = ["pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(TOOL), PIP_AUDIT]
        done = run(words)
        if done.returncode:
            raise Unjudged(f"pip-audit can't be installed: {last_line(done)}")


def judged(lock: Path) -> int:
    """Ask about one lock file, and say what was found."""
    found = holes(lock, "--require-hashes")
    for hole in found:
        say(f"{lock.name}: {hole}")
    say(f"{lock.name}: 已知漏洞 / known vulnerabilities: {len(found)}")
    if found:
        say("→ make lock, make test")
    return 1 if found else 0


def holes(file: Path, option: str) -> list[str]:
    """What is known against the packages of the file, one line each. Raises Unjudged."""
    words = [
        "pip_audit",
        "--requirement",
        str(file),
        option,
        "--disable-pip",
        "--progress-spinner=off",
        "--format=json",
    ]
    done = run(words)
    try:
        packages: list[dict[str, Any]] = orjson.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise Unjudged(f"{file.name}: {last_line(done)}") from None
    for package in packages:
        if "skip_reason" in package:
            raise Unjudged(f"{file.name}: {package['skip_reason']}")
    if not packages:
        raise Unjudged(f"{file.name}: no package was looked at")
    return [_told(package, flaw) for package in packages for flaw in package["vulns"]]


def _told(package: dict[str, Any], flaw: dict[str, Any]) -> str:
    cure = ", ".join(flaw["fix_versions"]) or "还没有 / none yet"
    return f"{package['name']} {package['version']}: {flaw['id']}; 修复版本 / fixed in: {cure}"


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a module of Python; what is in the tool's own directory comes first."""
    name, *arguments = words
    start = f"import runpy, sys; sys.path.insert(0, {str(TOOL)!r}); runpy.run_module({name!r}, None, '__main__', True)"
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"


def say(line: str, to: Any = None) -> None:
    (to or sys.stdout).write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
