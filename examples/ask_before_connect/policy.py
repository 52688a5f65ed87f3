"""Nothing connects to anywhere before somebody has said yes."""

from runsc.policy import ALLOW, DENY, Event, Verdict, ask, on


@on.connect
async def ask_first(event: Event) -> Verdict:
    """Who asks for a name, or talks to the same sandbox, needs no permission."""
    if event.family == "unix" or event.port == 53 or event.family not in ("inet", "inet6"):
        return ALLOW
    return await ask(
        f"{event.program} wants to connect to {event.address}, port {event.port}",
        deadline=120, otherwise=DENY("EACCES"),
    )  # fmt: skip
