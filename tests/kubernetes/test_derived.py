"""Nothing that is derived has been changed by hand, and nothing that it is derived from without `make golden`."""

from pathlib import Path

import pytest

from tests.kubernetes.renew import FILES, GOLDEN
from tests.project.repository import ROOT

pytestmark = pytest.mark.usefixtures("helm", "kubectl")


@pytest.mark.parametrize("path", list(FILES), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_file_is_what_it_is_derived_from(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == FILES[path](), "make golden, and read the diff"


def test_no_golden_file_is_left_over() -> None:
    assert {path for path in GOLDEN.iterdir() if path not in FILES} == set()
