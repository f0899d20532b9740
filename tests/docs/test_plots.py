"""The pages show a picture of each workload."""

from __future__ import annotations

import pytest

from greenpg_bench.workloads import NAMES

from .pages import DOCS

PAGE = (DOCS / "benchmarks.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_has_a_picture(name):
    file = f"plots/{name}.svg"

    assert f"]({file})" in PAGE
    assert (DOCS / file).exists()
