"""sentry.uuids."""

from __future__ import annotations

import uuid

from sentry.uuids import random_uuid


def test_each_is_a_random_one_of_its_own() -> None:
    made = {random_uuid() for _ in range(100)}
    assert len(made) == 100
    for text in made:
        read = uuid.UUID(text)
        assert str(read) == text
        assert read.version == 4 and read.variant == uuid.RFC_4122
