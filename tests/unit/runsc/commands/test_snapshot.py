"""`runsc snapshot inspect`, of an image that somebody else has written."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from runsc.commands import snapshot
from runsc.containers import snapshots
from sentry.state.records import Mounted


def test_its_words_move_no_terminal_and_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = "\x9b2J\u202e\x1b]0;"
    monkeypatch.setattr(snapshots, "objects", lambda folder: Mounted(kind, b""))
    shown = CliRunner().invoke(snapshot.command, ["inspect", "--objects", "/image"])
    assert shown.exit_code == 0
    assert shown.stdout.replace("\n", "").isprintable()
    assert json.loads(shown.stdout)["kind"] == kind
