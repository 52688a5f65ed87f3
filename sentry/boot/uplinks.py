"""A stack of its own behind the interfaces of a namespace of the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sentry.net.inet import leaving, tcp_link
from sentry.net.ip.layer import IpLayer
from sentry.net.link.follow import Uplinks

if TYPE_CHECKING:
    from sentry.net.host.process import NetworkProcess
    from sentry.net.host.view import HostView
    from sentry.net.stack import Stack


def plug_in(stack: Stack, view: HostView, process: NetworkProcess, loop: Any) -> None:
    """From now on the interfaces that the view shows are links of the stack."""
    stack.ip = IpLayer(stack.interfaces, stack.sysctls, os.urandom)
    leaving.plug(stack)
    tcp_link.plug(stack)
    uplinks = Uplinks(stack, stack.ip, process, loop)
    view.follow = uplinks.follow
    process.on_end = uplinks.close  # the host's own stack answers there from then on
