"""`delete`: what containerd calls when a shim has died: nothing of its container is left."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from runsc.containers import lifecycle
from runsc.errors import RuntimeFailure
from runsc.shim import options, rootfs
from runsc.shim.jobs import store_of, warn
from runsc.shim.messages import Deleted, timestamp
from runsc.shim.starting import SOCKETS, answers
from runsc.shim.tasks import KILLED
from sentry.protobuf import encode


def delete(container_id: str, bundle: str, namespace: str) -> bytes:
    """End the container, whatever it does; the answer. Raises: RuntimeFailure."""
    store = store_of(options.saved(bundle, namespace))
    pid = 0
    with suppress(RuntimeFailure):
        pid = store.load(container_id).pid
    lifecycle.delete(store, container_id, True, warn)
    rootfs.unmount(bundle)
    _forget_socket(bundle)
    return encode(Deleted(pid, KILLED, timestamp(time.time_ns())))


def _forget_socket(bundle: str) -> None:
    """Where the dead shim listened, if it is dead: other containers of its pod may live."""
    with suppress(OSError):
        with open(os.path.join(bundle, "address"), encoding="utf-8") as file:
            path = file.read().removeprefix("unix://")
        if os.path.dirname(path) == SOCKETS and not answers(path):
            os.unlink(path)
