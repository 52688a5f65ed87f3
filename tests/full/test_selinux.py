"""A kernel with SELinux, which enforces Debian's policy: tests/e2e/test_selinux.py there."""

from __future__ import annotations

import pytest

from tests.full.svm import PATIENCE_S, run

pytestmark = [pytest.mark.full, pytest.mark.svm, pytest.mark.timeout(PATIENCE_S + 60)]


def test_labels_under_the_policy_of_debian() -> None:
    said = run("--selinux", "tests/e2e/test_selinux.py")

    assert " passed" in said
    assert "skipped" not in said
