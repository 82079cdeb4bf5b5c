"""What the benchmarks share."""

import pytest

from crl import _core


@pytest.fixture(autouse=True, scope="session")
def release_build():
    """A debug build measures nothing."""
    assert _core.BUILD_PROFILE == "release", "rebuild the extension: maturin develop --release"
