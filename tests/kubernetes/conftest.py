"""What the tests of the manifests share: the tools, or the loud reason why there is none."""

import pytest

from tests.kubernetes.tools import Tools, tools


@pytest.fixture
def having() -> Tools:
    """The tools of this machine; a test that needs one of the optional ones asks for `helm` or `kubectl`."""
    return tools()


@pytest.fixture
def helm(having: Tools) -> None:
    if having.helm is None:
        pytest.skip("\n".join(having.missing))


@pytest.fixture
def kubectl(having: Tools) -> None:
    if having.kubectl is None:
        pytest.skip("\n".join(having.missing))
