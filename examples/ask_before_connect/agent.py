"""An agent that runs a program in a sandbox, and asks before each of its network connections.

    python examples/ask_before_connect/agent.py [--network NETWORK] [--yes PORT]... COMMAND [ARG]...

The person at the terminal is asked, once for each address and port; with --yes such ports are
allowed without being asked about, and nothing else is, for who has no terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from runsc import AsyncSandbox, PolicyQuestion

POLICY = Path(__file__).with_name("policy.py")


class Agent:
    """Who decides."""

    def __init__(self, allowed_ports: list[str]) -> None:
        self.allowed_ports = allowed_ports
        self.said: dict[str, bool] = {}

    async def decide(self, question: PolicyQuestion) -> str:
        """A verdict."""
        place = question.what
        if place not in self.said:
            self.said[place] = await self._ask(question)
        verdict = "allow" if self.said[place] else "deny EACCES"
        print(f"{printable(question.what)}: {verdict}", file=sys.stderr)
        return verdict

    async def _ask(self, question: PolicyQuestion) -> bool:
        if self.allowed_ports:
            return question.what.rpartition(":")[2] in self.allowed_ports
        text = f"{printable(question.text)}. Allow that? [y/N] "
        answer = await asyncio.to_thread(input, text)
        return answer.strip().lower() in ("y", "yes")


def printable(text: str) -> str:
    """Programs choose parts of it, and it goes to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


async def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="host")
    parser.add_argument("--yes", action="append", default=[], metavar="PORT")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    agent = Agent(given.yes)
    async with await AsyncSandbox.create(network=given.network, policy=POLICY) as sandbox:

        async def answer() -> None:
            async for question in sandbox.policy.questions():
                await sandbox.policy.answer(question.number, await agent.decide(question))

        answering = asyncio.create_task(answer())
        done = await sandbox.commands.run(given.command)
        answering.cancel()
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
        return int(done.exit_code)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
