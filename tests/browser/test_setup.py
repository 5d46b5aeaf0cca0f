"""The browser of the other tests notices what it must."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.browser.conftest import OpenPage

pytestmark = pytest.mark.integration


def test_errors_outside_requests_and_missing_names_are_noticed(open_page: OpenPage, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><html lang=en><title>t</title><main><h1>t</h1><input>"
        "<script>console.error('bad')</script><img alt='' src='http://192.0.2.1/a.png'></main></html>"
    )
    observed = open_page(page.as_uri())
    assert "bad" in observed.errors
    assert observed.outside == ["http://192.0.2.1/a.png"]
    with pytest.raises(AssertionError, match="label"):
        observed.check_accessible()
