"""The tests of the Rust crates, where cargo and their sources are at hand."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    shutil.which("cargo") is None or not (ROOT / "Cargo.lock").exists(), reason="needs cargo and the sources"
)
def test_the_crates_pass_their_tests():
    done = subprocess.run(
        ["cargo", "test", "--workspace", "--locked", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
