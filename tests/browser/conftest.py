"""Chromium without a window, and pages in it that must stay silent: no error, no request to the outside.

Everything in this folder needs playwright and Chromium, which `make integrations` has in ``.venv-browser``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.requirements import CHROMIUM, skip_without_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_ARGUMENTS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


@dataclass
class Observed:
    """A page, what it printed as an error, and what it asked for beyond its own origin."""

    page: Page
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def note_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def note_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"file", "data", "blob", "about"} and parts.hostname != "127.0.0.1":
            self.outside.append(request.url)

    def wait_until(self, condition: str) -> None:
        """Return when an expression is true; playwright's own way is forbidden where the page forbids ``eval``."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"after 10 seconds there is no {condition}")

    def check_silent(self) -> None:
        """Fail if the page printed an error or asked for anything outside."""
        assert self.errors == []
        assert self.outside == []

    def check_accessible(self) -> None:
        """Fail if axe-core finds a violation: missing names, too little contrast, and the like."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        assert [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found] == []


OpenPage = Callable[..., "Observed"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    skip_without_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Return a function that opens an address in a window of the given width, in a light or a dark scheme."""
    opened = []

    def open_one(address: str, width: int = 1440, scheme: str = "light", *, script: bool = True) -> Observed:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        opened.append(context)
        observed = Observed(context.new_page())
        observed.page.on("console", observed.note_console)
        observed.page.on("pageerror", lambda error: observed.errors.append(str(error)))
        observed.page.on("request", observed.note_request)
        observed.page.goto(address)
        return observed

    yield open_one
    for context in opened:
        context.close()
