"""Runs the supervisor over stand-in workers: `python -m tests.cli.supervised WORKERS [--deaf]`."""

import os
import sys
from pathlib import Path

from gateway import logs, supervisor
from gateway.settings import Settings

if __name__ == "__main__":
    logs.set_up("INFO", "text")
    settings = Settings(port=4711, key=("k" * 32,), workers=int(sys.argv[1]), close_seconds=0.1)
    worker = [sys.executable, str(Path(__file__).with_name("stand_in_worker.py")), *sys.argv[2:]]
    sys.exit(supervisor.run(settings, os.environ, worker))
