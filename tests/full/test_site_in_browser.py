"""The documentation site in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import rootfs_of
from tests.e2e.bundle import REPOSITORY
from tests.full.browser import browsing

pytestmark = [pytest.mark.full, pytest.mark.root]
WIDTHS = (1280, 400)


@pytest.mark.timeout(900)
def test_pages_fit_and_say_nothing_to_the_console(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-c", "ci/site", "-d", str(tmp_path / "trees")]
    site = tmp_path / "site"
    subprocess.run([*build, ".", str(site)], cwd=REPOSITORY, check=True)
    pages = sorted(path.relative_to(site) for path in site.rglob("*.html"))
    assert len(pages) > 60
    wrong = []
    with browsing(rootfs_of("browser"), site) as browser:
        for page in pages:
            browser.open(f"file:///mnt/{page}")
            papers = set()
            for width in WIDTHS:
                browser.ask(
                    "Emulation.setDeviceMetricsOverride",
                    width=width, height=900, deviceScaleFactor=1, mobile=False,
                )  # fmt: skip
                for scheme in ("light", "dark"):
                    browser.scheme(scheme)
                    papers.add(browser.value("getComputedStyle(document.body).backgroundColor"))
                    if browser.value("document.documentElement.scrollWidth") > width:
                        wrong.append(f"{page} does not fit in {width}")
            if len(papers) != 2:
                wrong.append(f"{page} is the same in light and dark")
            methods = ("Log.entryAdded", "Runtime.exceptionThrown")
            wrong += [str(each) for each in browser.events if each.get("method") in methods]
    assert wrong == []
