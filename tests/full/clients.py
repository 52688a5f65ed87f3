"""docs/clients.md: what engines do over runc, this runtime and gVisor, as the tests of them saw it.

    python -m tests.full.clients > docs/clients.md                  # all tests with each runtime
    python -m tests.full.clients --runtime=ours FOLDER tests/full/test_podman.py -k cp
    python -m tests.full.clients FOLDER > docs/clients.md           # of reports that are there

A row is a title that tests have (`pytest.mark.row`), "yes" if all of them passed. Reports are
pytest's, in FOLDER; of a test in several the newest tells.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.full.runtimes import RUNTIMES, Runtime

HERE = Path(__file__).parent
ENGINES = {
    "podman": ("podman", "--version"),
    "docker": ("docker", "--version"),
    "containerd (`ctr`)": ("containerd", "--version"),
    "Kubernetes (the CRI of containerd)": ("containerd", "--version"),
}
MODULES = {
    "test_podman": "podman",
    "test_rootless": "podman",
    "test_docker": "docker",
    "test_containerd": "containerd (`ctr`)",
    "test_cri": "Kubernetes (the CRI of containerd)",
}
COLUMNS = {"runc": "runc", "ours": "this runsc", "gvisor": "gVisor"}
HEAD = """\
# What works with podman, docker, containerd and Kubernetes

What tests of these engines saw on {date}: {versions}, on Linux {kernel} (cgroups {cgroups}). \
A row is what a test does; "yes" means that all of it was as it should be. Rows whose tests were \
not run at all are left out. `python -m tests.full.clients > docs/clients.md` makes this page.

- runc is what tells what is right.
- This runsc is as it is by default: what is written to the root is kept, and a network \
namespace has a stack of its own.
- gVisor is Debian's, with `--network=host`: its own network stack did not start on this kernel \
("cannot run with network enabled in root network namespace"). The package has no shim for \
containerd, so containerd calls it through runc's, and pods, which need its own, are not run.
- In rows about what a container leaves in its files (`commit` and the like) gVisor has \
`--overlay2=none`; its default keeps that in a file of its own.
"""


@dataclass(frozen=True)
class Outcome:
    """Of one test with one runtime."""

    engine: str
    row: str
    said: str
    place: tuple[str, int]
    """In the source: the order of rows."""


def _module(classname: str) -> str:
    """The engine of a test, "" if it is none's."""
    name = classname.rpartition(".")[2]
    return next((MODULES[each] for each in MODULES if name.startswith(each)), "")


def _said(case: ET.Element) -> str:
    """ "yes", or why not."""
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            return f"no: {_short(found.get('message', ''))}"
    skipped = case.find("skipped")
    if skipped is None:
        return "yes"
    message = skipped.get("message", "")
    return message if skipped.get("type") == "pytest.xfail" else f"skipped: {message}"


def _short(message: str) -> str:
    """The first line of a failure, fit for a table."""
    line = message.strip().splitlines()[0] if message.strip() else "failed"
    return re.sub(r"\s+", " ", line).replace("|", "\\|")[:80]


def _cases(folder: Path, runtime: str) -> Iterator[tuple[str, Outcome]]:
    """The tests in a runtime's reports, oldest first, each with what it is known by."""
    reports = sorted(folder.glob(f"{runtime}-*.xml"), key=lambda path: path.stat().st_mtime)
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            engine = _module(case.get("classname", ""))
            rows = [each.get("value", "") for each in case.iter("property")
                    if each.get("name") == "row"]  # fmt: skip
            if engine and rows:
                key = f"{case.get('classname')} {case.get('name')}"
                place = (case.get("file", ""), int(case.get("line", "0")))
                yield key, Outcome(engine, rows[0], _said(case), place)


def _table(folder: Path) -> dict[str, dict[str, dict[str, list[str]]]]:
    """What was said, by engine, row and runtime."""
    found = [(name, each) for name in COLUMNS for each in dict(_cases(folder, name)).values()]
    table: dict[str, dict[str, dict[str, list[str]]]] = {engine: {} for engine in ENGINES}
    for runtime, outcome in sorted(found, key=lambda pair: pair[1].place):
        row = table[outcome.engine].setdefault(outcome.row, {})
        row.setdefault(runtime, []).append(outcome.said)
    return table


def _cell(said: list[str] | None) -> str:
    """Of several tests what is not "yes", each once."""
    if not said:
        return "not run"
    differs = dict.fromkeys(each for each in said if each != "yes")
    told = [each for each in differs if not each.startswith("skipped")]
    if "yes" in said and not told:
        return "yes"  # a test of several had nothing to look at
    return "; ".join(told or differs)


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return f"no {command[0]}"
    line = done.stdout.splitlines()[0] if done.stdout else f"no {command[0]}"
    return re.sub(r" version|github\.com/\S+ |, build \w+| \S+\+deb\w+$", "", line)


def _version(runtime: Runtime) -> str:
    found = _first_line(*runtime.command, "--version")
    return f"{COLUMNS[runtime.name]} {re.sub(r'^runs?c', '', found).strip()}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def tables(folder: Path) -> str:
    """How many rows of each engine are "yes", then all of them."""
    table = {engine: rows for engine, rows in _table(folder).items() if rows}
    border = _line("---" for _ in ("", *COLUMNS))
    counts = _line(("", *COLUMNS.values())) + border
    text = ""
    for engine, rows in table.items():
        cells = {row: [_cell(said.get(name)) for name in COLUMNS] for row, said in rows.items()}
        told = zip(*cells.values(), strict=True)
        counts += _line((engine, *map(_count, told)))
        text += f"\n## {engine}\n\n" + _line(("", *COLUMNS.values())) + border
        text += "".join(_line((row, *said)) for row, said in cells.items())
    if absent := [engine for engine in ENGINES if engine not in table]:
        counts += f"\nNot run for this page: {', '.join(absent)}.\n"
    return f"\n{counts}{text}"


def _count(cells: tuple[str, ...]) -> str:
    """Of a column."""
    ran = [cell for cell in cells if cell != "not run"]
    return f"{ran.count('yes')} of {len(ran)}" if ran else "not run"


def page(folder: Path) -> str:
    """The page from the reports in a folder."""
    runtimes = [RUNTIMES[name]() for name in COLUMNS]
    versions = [*dict.fromkeys(_first_line(*command) for command in ENGINES.values())]
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    head = HEAD.format(
        date=f"{datetime.now(UTC):%-d %B %Y}",
        kernel=os.uname().release,
        cgroups="2" if unified else "1",
        versions=", ".join([*versions, *map(_version, runtimes)]),
    )
    return head + tables(folder)


def run(folder: Path, runtime: str, arguments: list[str]) -> None:
    """Run tests with a runtime; the report is one more in the folder."""
    report = folder / f"{runtime}-{datetime.now(UTC):%Y%m%d-%H%M%S}.xml"
    tests = arguments or [str(path) for name in MODULES for path in HERE.glob(f"{name}*.py")]
    flags = ["-q", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *flags, *tests],
        env={**os.environ, "RUNSC_TEST_RUNTIME": runtime},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,  # the page tells what failed
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runtime", choices=COLUMNS, action="append", help="run tests with it")
    parser.add_argument("folder", nargs="?", type=Path, help="of reports (default: run all)")
    known, arguments = parser.parse_known_args()
    if known.folder is None:
        known.folder, known.runtime = Path(tempfile.mkdtemp(prefix="clients-")), list(COLUMNS)
    known.folder.mkdir(exist_ok=True)
    for runtime in known.runtime or ():
        run(known.folder, runtime, arguments)
    sys.stdout.write(page(known.folder))


if __name__ == "__main__":
    main()
