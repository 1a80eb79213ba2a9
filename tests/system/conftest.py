"""Fixtures of the tests of whole runs."""

import pytest
from tortured_runs import Torture


@pytest.fixture(scope="session")
def torture(tmp_path_factory, process_server):
    return Torture(tmp_path_factory.mktemp("torture"), process_server)
