"""Optional packages: found without an import, and reported missing in one form of words."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from retrograd.types import UserError
from retrograd.util.optional import find_module_file, is_installed, require_package


def test_what_is_installed_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("some_package", "some_package/part"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("" if package == "some_package" else "raise AssertionError")
    (tmp_path / "some_folder").mkdir()  # of a tracker's files, say: it could be imported, and is no package
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_module_file("some_package") == tmp_path / "some_package" / "__init__.py"
    assert is_installed("some_package.part")
    assert not is_installed("some_folder")
    assert not is_installed("no_such_package.part")
    require_package("a test", "some-package", "some")
    monkeypatch.delitem(sys.modules, "some_package")


def test_what_is_missing_is_named_with_the_extra_that_brings_it() -> None:
    message = "a test needs no-such-package, which is not installed: pip install 'retrograd[some]'"
    with pytest.raises(UserError, match=rf"^{re.escape(message)}$"):
        require_package("a test", "no-such-package", "some")
    with pytest.raises(UserError, match=rf"^{re.escape(message)}, or do without$"):
        require_package("a test", "no-such-package", "some", instead="do without")
    require_package("a test", "no-such-package", "some", module="pytest")


def test_no_other_file_asks_whether_a_package_is_installed() -> None:
    source = Path(__file__).parents[2] / "src" / "retrograd"
    asking = [path.name for path in source.rglob("*.py") if "find_spec" in path.read_text(encoding="utf-8")]
    assert asking == ["optional.py"]
