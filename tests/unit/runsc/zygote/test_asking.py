"""Who asks for a zygote, or for its end, while one begins."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from runsc.errors import RuntimeFailure
from runsc.zygote import asking, beginning


@pytest.mark.parametrize("ask", [asking.start, asking.stop])
def test_one_that_does_not_listen_in_time_is_told(
    ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning, "claim_name", lambda: f"\0runsc-test-{os.getpid()}")
    monkeypatch.setattr(asking, "BEGIN_S", 0.001)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as claim:
        claim.bind(beginning.claim_name())
        claim.listen()

        with pytest.raises(RuntimeFailure, match="does not listen yet"):
            ask()
