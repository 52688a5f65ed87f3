"""The words of a command line as Go programs take them, which engines are used to.

runc and gVisor's runsc parse with Go's `flag`: one dash is as good as two, and a switch may have a
value. Here `-b DIR` is short for --bundle, so only a name that is an option's own counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

VALUES = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
ROOTLESS, LEVELS = "--rootless", ("true", "false", "auto")
"""runc's has a value; gVisor's is a switch."""


def plain(
    args: Sequence[str], switches: set[str], others: set[str], *, mixed: bool, last: str = ""
) -> list[str]:
    """The same as click takes it: `--name`, a switch that is off left out.

    `switches` are all long options without a value, `others` all that have one; `mixed`: they may
    stand behind arguments, too; `last`: the switch behind which all is the program's.
    """
    made: list[str] = []
    words = deque(args)
    while words:
        word = words.popleft()
        if word == "--" or (not mixed and word[:1] != "-"):
            return [*made, word, *words]
        name, equals, value = word.partition("=")
        if name[:1] == "-" != name[1:2] and f"-{name}" in switches | others:
            name = f"-{name}"
        if name in switches and value.lower() in VALUES:
            if not VALUES[value.lower()]:
                continue
            equals = value = ""
        if name == ROOTLESS and name in others and not equals:
            equals, value = "=", words.popleft() if words and words[0] in LEVELS else "true"
        made.append(name + equals + value)
        if made[-1] == last:
            return [*made, *words]
        if name in others and not equals and words:
            made.append(words.popleft())
    return made
