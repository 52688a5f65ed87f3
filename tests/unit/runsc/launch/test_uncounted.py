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


LATER = """
import sys
from runsc.launch.uncounted import count_no_more
old = []
count_no_more()
text = "".join(("come", " ", "later"))
old.append((text, {text: 1.5}))
count_no_more()
for each in (text, *old, old[0][1]):
    counted = sys.getrefcount(each)
    more = [each] * 1000
    assert sys.getrefcount(each) == counted, each
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 683")
def test_what_has_come_to_them_since_is_found_the_next_time() -> None:
    subprocess.run([sys.executable, "-c", LATER], check=True)


USED = """
import gc, sys
from runsc.launch.uncounted import count_no_more
class Base:
    def __init__(self): self.here = 1
class Kind(Base):
    def __hash__(self): raise RuntimeError("not to be called")
    def __del__(self): gone.append(1)
class Meta(type):
    def __getattribute__(cls, name): raise RuntimeError("not to be called")
class Odd(metaclass=Meta): pass
def numbers():
    local = Kind()
    yield local
gone, running = [], numbers()
next(running)
held = [Kind(), Odd, iter([1, 2]), (each for each in [Kind()]), memoryview(bytearray(9)), 1 << 99]
count_no_more()
del held
before, after = len(gone), Kind()
del after
assert len(gone) == before + 1, "what came later is freed as ever"
assert list(running) == []
gc.collect()
"""


def test_nothing_of_theirs_is_run_and_they_go_on() -> None:
    subprocess.run([sys.executable, "-X", "dev", "-c", USED], check=True)


CODE = """
import sys
from types import ModuleType
from runsc.launch.uncounted import count_code_no_more
def decorated(function):
    held = Kind()
    def inner(): return held, function
    return inner
class Kind:
    def __del__(self): gone.append(1)
    def method(self): return "a text of it"
    @property
    def read(self): return 1
@decorated
def wrapped(): pass
gone, made = [], [Kind(), lambda: kept]
kept = Kind()
method, text = Kind.method, next(
    each for each in Kind.method.__code__.co_consts if isinstance(each, str)
)
count_code_no_more()
for each in (Kind, method, method.__code__, text, Kind.read, Kind.read.fget, wrapped):
    counted = sys.getrefcount(each)
    more = [each] * 1000
    assert sys.getrefcount(each) == counted, each
for each in (made, made[0], made[1], kept, wrapped.__closure__[0].cell_contents):
    counted = sys.getrefcount(each)
    more = [each] * 1000
    assert sys.getrefcount(each) == counted + 1000, each
del made, more, each
assert len(gone) == 1, "what is no code is freed as ever"
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 683")
def test_of_code_alone_it_is_that_of_modules_and_what_they_have_made_is_freed_as_ever() -> None:
    subprocess.run([sys.executable, "-X", "dev", "-c", CODE], check=True)
