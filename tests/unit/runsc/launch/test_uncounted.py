from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from runsc.launch.uncounted import count_no_more
class Kind: pass
before = Kind()
count_no_more()
counted = sys.getrefcount(before)
more = [before] * 1000
assert sys.getrefcount(before) == counted, "an object that was there is counted"
after = Kind()
counted = sys.getrefcount(after)
more = [after] * 1000
assert sys.getrefcount(after) == counted + 1000, "one that came later is not"
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 683")
def test_what_is_there_is_not_counted_and_what_comes_is() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


CONSTANTS = """
import sys
from types import CodeType
from runsc.launch.uncounted import count_no_more
def outer():
    def inner():
        return "it has spaces", 1.5
    return inner
inner = next(each for each in outer.__code__.co_consts if isinstance(each, CodeType))
text = next(each for each in inner.co_consts if isinstance(each, tuple))
number = text[1]
count_no_more()
for each in (text, number):
    counted = sys.getrefcount(each)
    more = [each] * 1000
    assert sys.getrefcount(each) == counted, each
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 683")
def test_constants_of_code_are_not_counted_though_no_collector_knows_of_them() -> None:
    subprocess.run([sys.executable, "-c", CONSTANTS], check=True)
