"""The page of `runsc report` in a real browser: what it shows, what it runs, what it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runsc.containers.watching import MAGIC, framed, recorded
from runsc.report.page import SECTIONS, page, picture
from runsc.report.tree import html, svg
from tests.conftest import rootfs_of
from tests.e2e.bundle import kvm_is_usable
from tests.full.browser import Browser, browsing
from tests.full.recorded import PROGRAMS
from tests.full.recorded import recorded as recorded_of
from tests.unit.runsc.report.recordings import MARKUP, run, summed
from tests.unit.runsc.report.test_page import hostile

pytestmark = [pytest.mark.full, pytest.mark.root]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def browser(folder: Path) -> Iterator[Browser]:
    """Skipped, with the reason, where there is none."""
    with browsing(rootfs_of("browser"), folder) as made:
        yield made


def test_the_page_is_drawn_in_light_and_in_dark(folder: Path, browser: Browser) -> None:
    (folder / "report.html").write_bytes(html(page(summed(run()), "web")))
    browser.open("file:///mnt/report.html")
    headings = "[...document.querySelectorAll('h2')].map(each => each.textContent)"
    assert browser.value(headings) == list(SECTIONS)
    drawn = "[...document.querySelectorAll('svg')].map(each => each.getBoundingClientRect())"
    assert browser.value(f"{drawn}.every(box => box.width > 300 && box.height > 10)")
    assert browser.value("document.querySelectorAll('#processes rect').length") == 3
    overflows = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not browser.value(overflows)
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    seen = {}
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        seen[scheme] = (browser.value(paper), browser.value(ink), browser.picture())
    assert seen["light"][:2] == ("rgb(255, 255, 255)", "rgb(28, 30, 33)")
    assert seen["dark"][:2] == ("rgb(21, 24, 28)", "rgb(228, 231, 235)")
    assert seen["light"][2] != seen["dark"][2]


@pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here")
@pytest.mark.parametrize(
    ("name", "programs", "path"),
    [
        ("build", ("make", "cc1", "ld"), "main.c"),
        ("server", ("nginx", "ab"), "/tmp/www/index.html"),
        ("shell", ("find", "xargs", "date"), "file1"),
    ],
)
def test_a_program_that_was_recorded_is_drawn(
    folder: Path, browser: Browser, name: str, programs: tuple[str, ...], path: str
) -> None:
    client, recording = recorded_of(folder, PROGRAMS[name])
    report = folder / "report.html"
    client.ok("report", f"--output={report}", str(recording))
    browser.open("file:///mnt/report.html")
    assert browser.value("document.title") == "Report: recording"
    drawn = "[...document.querySelectorAll('#processes text')].map(e => e.textContent)"
    assert {row.partition(" ")[2] for row in browser.value(drawn)}.issuperset(programs)
    assert "no end was recorded" not in browser.value(
        "document.querySelector('#processes tbody tr').textContent"
    )
    paths = "[...document.querySelectorAll('#files td:first-child')].map(e => e.textContent)"
    assert path in browser.value(paths)
    overflows = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not browser.value(overflows)
    assert "records were lost" not in browser.value("document.body.textContent")


def test_nothing_of_a_hostile_recording_runs_or_is_loaded(folder: Path, browser: Browser) -> None:
    (folder / "report.html").write_bytes(html(page(summed(hostile()), MARKUP)))
    browser.open("file:///mnt/report.html")
    strange = "document.querySelectorAll('script,img,a,iframe,object,form,link').length"
    assert browser.value(strange) == 0
    assert browser.value("document.body.innerText.includes('<script>alert(1)</script>')")
    methods = {each["method"] for each in browser.events}
    assert methods.isdisjoint({"Page.javascriptDialogOpening", "Log.entryAdded"})
    asked = [each["params"]["request"]["url"] for each in browser.events
             if each["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert asked == ["file:///mnt/report.html"]


def test_what_were_to_run_all_the_same_is_stopped(folder: Path, browser: Browser) -> None:
    made = html(page(summed(run()), "web"))
    broken = made.replace(b"</body>", b"<script>document.title = 'it ran'</script></body>")
    (folder / "report.html").write_bytes(broken)
    browser.open("file:///mnt/report.html")
    assert browser.value("document.title") == "Report: web"


def test_a_picture_is_drawn_by_itself(folder: Path, browser: Browser) -> None:
    drawn = picture(summed(run()), "timeline")
    assert drawn is not None
    (folder / "timeline.svg").write_bytes(svg(drawn))
    browser.open("file:///mnt/timeline.svg")
    assert browser.value("document.documentElement.tagName") == "svg"
    assert browser.value("document.querySelectorAll('rect').length") == 4  # and the paper
    assert len(browser.picture()) > 2000


def test_a_recording_as_it_is_kept_is_the_same_page(folder: Path) -> None:
    path = folder / "recording"
    path.write_bytes(MAGIC + b"".join(map(framed, run())))
    with path.open("rb") as file:
        again = summed(recorded(file))
    assert html(page(again, "web")) == html(page(summed(run()), "web"))
