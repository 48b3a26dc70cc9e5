"""Programs that tests compile are kept beside pytest's own cache, so that a second run is quick and no home is touched."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def programs(request):
    before = os.environ.get("MINIGRAD_CACHE")
    os.environ["MINIGRAD_CACHE"] = str(Path(request.config.rootpath) / ".pytest_cache" / "minigrad")
    yield
    if before is None:
        del os.environ["MINIGRAD_CACHE"]
    else:
        os.environ["MINIGRAD_CACHE"] = before
