"""Runs the supervisor over stand-in workers.

`python -m tests.cli.supervised WORKERS [ADMIN_PORT] [--deaf | --answering]`
"""

import os
import sys
from pathlib import Path

from gateway import logs, supervisor
from gateway.settings import Settings

if __name__ == "__main__":
    logs.set_up("INFO", "text")
    is_answering = "--answering" in sys.argv
    workers, admin_port = [*(int(word) for word in sys.argv[1:] if word.isdecimal()), 0][:2]
    settings = Settings(
        host="127.0.0.1",
        port=4711,
        admin_port=admin_port,
        admin_key="a-key-for-operators" if is_answering else "",
        key=("k" * 32,),
        workers=workers,
        close_seconds=0.1,
    )
    program = Path(__file__).with_name("answering.py" if is_answering else "stand_in_worker.py")
    sys.exit(supervisor.run(settings, os.environ, [sys.executable, str(program), *sys.argv[2:]]))
