"""Programs of many languages: threads, timers, sockets, files and children end as on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.bundle import kvm_is_usable
from tests.full.native import PATIENCE_S, Comparison

pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.alike,
    pytest.mark.kvm,
    pytest.mark.timeout(2 * PATIENCE_S),
    pytest.mark.skipif(not kvm_is_usable(), reason="/dev/kvm cannot be used here"),
]
SOURCES = Path(__file__).parent / "languages"
JAVA = "javac -d . /mnt/Threads.java && exec java -Xmx200m"
PROGRAMS = {
    "c++": "g++ -O1 -pthread -o p /mnt/threads.cpp && exec ./p",
    "go": "go build -o p /mnt/concurrent.go && "
    "for n in 1 2 3 4 5; do GOMAXPROCS=2 ./p; done; exec ./p",
    "java, parallel collector": f"{JAVA} -XX:+UseParallelGC -XX:ParallelGCThreads=2 Threads",
    "java, G1 collector": f"{JAVA} -XX:+UseG1GC Threads",
    "java, interpreted, Z collector": f"{JAVA} -Xint -XX:+UseZGC Threads",
    "node": "exec node /mnt/server.mjs",
    "php": "exec php /mnt/program.php",
    "ruby": "exec ruby /mnt/program.rb",
    "rust": "rustc --edition=2021 -O -o p /mnt/threads.rs && exec ./p",
}
GO_PACKAGES = "os os/exec os/signal syscall net sync time"


@pytest.fixture
def comparison(tmp_path: Path, languages: Path) -> Comparison:
    return Comparison(tmp_path, languages, SOURCES)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_ends_as_on_linux(comparison: Comparison, name: str) -> None:
    assert comparison.same(PROGRAMS[name])


def test_tests_of_go_end_as_on_linux(comparison: Comparison) -> None:
    """Those of its standard library, as Debian packages them."""
    script = f"go test -short -vet=off {GO_PACKAGES} | sed -E 's/[0-9.]+s//g'"

    assert comparison.same(script)
