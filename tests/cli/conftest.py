"""A command line for each test of this room."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[CommandLine]:
    line = CommandLine(tmp_path)
    yield line
    await line.stop_all()
