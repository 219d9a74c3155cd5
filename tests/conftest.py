"""What every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos, where this checkout has one beside it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: this test runs on its photos")
    return folder
