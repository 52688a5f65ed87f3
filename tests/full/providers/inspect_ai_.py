"""inspect-ai with sandboxes of ours: an evaluation whose solver uses them.

Usage: inspect_ai_.py ROOT STATE
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, TaskState, solver
from inspect_ai.util import OutputLimitExceededError, sandbox

import runsc.providers.inspect as ours
from runsc import Sandbox


async def failing(awaitable: Any) -> type[BaseException] | None:
    try:
        await awaitable
    except BaseException as error:
        return type(error)
    return None


@solver
def uses() -> Any:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        box = sandbox()
        script = "cat; pwd; cat given.txt; echo e >&2; exit 4"
        done = await box.exec(["sh", "-c", script], input="in ")
        assert (done.success, done.returncode, done.stderr) == (False, 4, "e\n"), done
        assert done.stdout == "in /workspace\nfrom the sample", done.stdout
        done = await box.exec(["no-such-program"])
        assert (done.success, done.returncode) == (False, 127)
        assert await failing(box.exec(["sleep", "100"], timeout=1)) is not None
        assert issubclass(await failing(box.exec(["sleep", "100"], timeout=1)) or int, TimeoutError)
        assert await failing(box.exec(["yes"])) is OutputLimitExceededError
        await box.write_file("a/b.txt", "x\r\ny")
        assert await box.read_file("a/b.txt") == "x\r\ny"
        await box.write_file("c", b"\xff\x00")
        assert await box.read_file("/workspace/c", text=False) == b"\xff\x00"
        assert await failing(box.read_file("c")) is UnicodeDecodeError
        assert await failing(box.read_file("none")) is FileNotFoundError
        assert await failing(box.read_file("a")) is IsADirectoryError
        assert (await box.exec(["sh", "-c", "echo $A; id -u"], env={"A": "b"}, user="nobody")
                ).stdout.startswith("b\n")  # fmt: skip
        assert (await box.exec(["sh", "-c", "echo $WORD"], cwd="a")).stdout == "word\n"
        state.output.completion = "solved"
        return state

    return solve


def main(root: str, state: str) -> None:
    config = ours.RunscConfig(root=root, state=state, env=("WORD=word",))
    samples = [
        Sample(input=str(n), target="solved", files={"given.txt": "from the sample"})
        for n in range(4)
    ]
    task = Task(dataset=samples, solver=uses(), scorer=includes(), sandbox=("runsc", config))
    [log] = eval(
        task, model="mockllm/model", display="none", log_dir=tempfile.mkdtemp(), log_level="error"
    )
    assert log.status == "success", log.error
    assert all(each.error is None for each in log.samples or []), log.samples
    assert Sandbox.list(state=state) == []
    print("passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
