"""A platform that this installation cannot offer."""

from __future__ import annotations

import sys

from tests.e2e.bundle import Bundle, execute

WITHOUT_UNICORN = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "unicorn" else find(name, *rest)
from runsc.cli import main
sys.argv = ["runsc", *sys.argv[1:]]
main()
"""


def test_unicorn_without_its_package_names_the_extra(bundle: Bundle) -> None:
    arguments = bundle.args("/bin/true").command("unicorn")[3:]

    result = execute([sys.executable, "-c", WITHOUT_UNICORN, *arguments])

    assert result.returncode != 0
    assert "pip install 'runsc[unicorn]'" in result.stderr
    assert "Traceback" not in result.stderr
