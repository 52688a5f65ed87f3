"""Filters in C, against Linux, and against a slow and plain interpreter (model.py)."""

from __future__ import annotations

import gc
import os
import socket
import struct
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sentry.bpf import isa
from sentry.bpf.filter import LOOKED, PLACE_SHIFT, CallFilter, Packet, PacketFilter
from sentry.bpf.isa import Instruction, Program, pack
from sentry.errors import EINVAL
from tests.unit.bpf import host_filter, model, model_check
from tests.unit.bpf.programs import (
    ANCILLARY,
    ANYTHING,
    FOR_CALLS,
    LINK,
    NET,
    RETURN_A,
    SENSIBLE,
)

ALLOW = 0x7FFF0000
RETURN = Instruction(isa.RET | isa.K, 0, 0, ALLOW)
NONE = (0,) * 6
WORDS = st.integers(0, (1 << 64) - 1)


def load(offset: int, size: int = isa.W) -> Instruction:
    """LD ABS."""
    return Instruction(isa.LD | isa.ABS | size, 0, 0, offset)


def accepted(program: Program, kind: type[CallFilter] | type[PacketFilter] = PacketFilter) -> bool:
    """Whether it can be made."""
    try:
        kind(pack(program))
    except EINVAL:
        return False
    return True


def run(program: Program, packet: Packet) -> int:
    """Its result."""
    return PacketFilter(pack(program)).run(packet)


# Against Linux -----------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(ANYTHING)
def test_filter_is_accepted_if_linux_accepts_it(program: Program) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert accepted(program) == host_filter.attach(sock, program)


@settings(max_examples=800, deadline=None)
@given(SENSIBLE, st.binary(min_size=1, max_size=48))
@example((load(NET + 3), RETURN_A), b"\0\0\0\0\0\0\5")
@example((load(ANCILLARY + 8), RETURN_A), b"no device")
@example((Instruction(isa.LD, 0, 0, 7), load(ANCILLARY + 8), RETURN_A), b"A is what is left")
@example((load(LINK), RETURN_A), b"no link header")
def test_filter_lets_through_what_linux_lets_through(program: Program, packet: bytes) -> None:
    assume(accepted(program))

    passed = min(run(program, Packet(packet)), len(packet))

    assert passed == host_filter.passed_length(program, packet)


ATTRIBUTES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 3), st.binary(max_size=8)), max_size=5
).map(lambda rows: b"".join(struct.pack("<HH", size, kind) + rest for size, kind, rest in rows))


@settings(max_examples=300, deadline=None)
@given(
    ATTRIBUTES.filter(bool), st.sampled_from([12, 16]), st.integers(0, 24), st.integers(0, 4)
)  # fmt: skip
def test_filter_finds_the_netlink_attributes_that_linux_finds(
    packet: bytes, what: int, begin: int, kind: int
) -> None:
    program = (
        Instruction(isa.LDX | isa.IMM, 0, 0, kind), Instruction(isa.LD | isa.IMM, 0, 0, begin),
        load(ANCILLARY + what), RETURN_A,
    )  # fmt: skip

    passed = min(run(program, Packet(packet)), len(packet))

    assert passed == host_filter.passed_length(program, packet)


SECCOMP_BOUNDS = [
    load(0), load(60), load(64), load(2), load(0, isa.H),
    Instruction(isa.LD | isa.IND, 0, 0, 0), Instruction(isa.LD | isa.LEN, 0, 0, 0),
    Instruction(isa.LDX | isa.LEN, 0, 0, 0), Instruction(isa.LDX | isa.MSH | isa.B, 0, 0, 0),
    Instruction(isa.ALU | isa.MOD | isa.K, 0, 0, 3),
    Instruction(isa.ALU | isa.DIV | isa.K, 0, 0, 3),
    Instruction(isa.ALU | isa.DIV | isa.K, 0, 0, 0),
    Instruction(isa.ALU | isa.LSH | isa.K, 0, 0, 32),
    Instruction(isa.ALU | isa.XOR | isa.X, 0, 0, 0), Instruction(isa.ALU | isa.NEG, 0, 0, 0),
    Instruction(isa.LD | isa.MEM, 0, 0, 0), Instruction(isa.ST, 0, 0, 15),
    Instruction(isa.ST, 0, 0, 16), Instruction(isa.JMP | isa.JSET | isa.X, 0, 0, 0),
    Instruction(isa.JMP | isa.JEQ | isa.K, 1, 0, 0), Instruction(isa.JMP | isa.JA, 0, 0, 1),
]  # fmt: skip


@pytest.mark.parametrize("first", SECCOMP_BOUNDS)
def test_filter_for_calls_is_accepted_if_linux_accepts_it(first: Instruction) -> None:
    from runsc import host  # noqa: PLC0415

    program = (first, RETURN)
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            host.prctl(38, 1)
            host.install_filter(pack(program), 0)
        except OSError:
            code = 1
        finally:
            os._exit(code)

    # having installed it may be the last that the child does
    assert accepted(program, CallFilter) == (os.waitpid(pid, 0)[1] != 1 << 8)


@pytest.mark.parametrize(
    "step",
    [
        load(0), load(8), load(8, isa.B), load(40000), load(NET), load(ANCILLARY),
        load(ANCILLARY + 8), load(ANCILLARY + 12), load(ANCILLARY + 20), load(ANCILLARY + 48),
        Instruction(isa.LD | isa.IND, 0, 0, 0), Instruction(isa.LD | isa.IND, 0, 0, 8),
        Instruction(isa.LDX | isa.MSH | isa.B, 0, 0, 8),
        Instruction(isa.ALU | isa.DIV | isa.X, 0, 0, 0), RETURN, RETURN_A,
        Instruction(isa.JMP | isa.JEQ | isa.K, 0, 0, 0xFFFFFFFF),
        Instruction(isa.JMP | isa.JSET | isa.K, 0, 1, 1), Instruction(isa.ALU, 0, 0, 1),
    ],
)  # fmt: skip
def test_filter_counts_the_instructions_that_linux_makes_of_it(step: Instruction) -> None:
    """What a socket may have of them ends at net.core.optmem_max, 128 KiB."""

    def program(more: int) -> Program:
        tail = (Instruction(isa.ALU, 0, 0, 1),) * 2
        return (*(load(8),) * more, *(step,) * 500, *tail, RETURN)

    fits, too_many = 0, 4096 - 503
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fresh:
            if host_filter.attach(fresh, program(middle)):
                fits = middle
            else:
                too_many = middle

    sizes = [96 + 8 * PacketFilter(pack(program(n))).converted for n in (fits, too_many)]
    assert sizes[0] < 131072 <= sizes[1]


# Against the model -------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(FOR_CALLS, st.integers(-1, 500), st.tuples(*(WORDS,) * 6))
def test_filter_for_calls_gives_what_the_model_gives(
    program: Program, number: int, arguments: tuple[int, ...]
) -> None:
    try:
        checked = model_check.check_seccomp(program)
    except EINVAL:
        assert not accepted(program, CallFilter)
        return
    words = model.seccomp_data(number, 0xC000003E, 7, arguments)
    # an action and its data: what is looser than ALLOW counts as ALLOW
    result, looked = model.depends_on_arguments(checked, words)
    stricter = signed(result & 0xFFFF0000) < ALLOW

    found = CallFilter(pack(program)).run(number, 0xC000003E, 7, arguments)

    assert found & 0xFFFFFFFF == (result if stricter else ALLOW)
    assert bool(found & LOOKED) == looked


def signed(value: int) -> int:
    """As 32 bits with a sign."""
    return value - (1 << 32) if value >> 31 else value


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([0, 0x30000, 0x50001, 0x50002, ALLOW, 0x80000000]), min_size=1))
def test_strictest_of_several_filters_decides_and_the_newest_of_equals(results: list[int]) -> None:
    newest = stack([(Instruction(isa.RET, 0, 0, result),) for result in reversed(results)])
    actions = [signed(result & 0xFFFF0000) for result in results]
    place = actions.index(min(actions))

    found = newest.run(1, 2, 3, NONE)

    assert found & 0xFFFFFFFF == (results[place] if actions[place] < ALLOW else ALLOW)
    assert found >> PLACE_SHIFT == (place if actions[place] < ALLOW else 0)


def stack(programs: list[Program]) -> CallFilter:
    """Filters, the oldest first; gives the newest."""
    newest = CallFilter(pack(programs[0]))
    for program in programs[1:]:
        newer = CallFilter(pack(program))
        newer.put_before(newest, 4)
        newest = newer
    return newest


# By itself ---------------------------------------------------------------------------------------

FRAME = bytes(12) + b"\x08\x00" + b"\x45" + bytes(19) + b"payload"


def ip_packet(start: int) -> Packet:
    """A frame with an IPv4 header, seen from `start` on."""
    return Packet(FRAME, start, network=14, link=0).of(0x800, 4, 1, 772)


@pytest.mark.parametrize(
    ("offset", "result"),
    [(0, ord("p")), (NET, 0x45), (LINK + 12, 8), (LINK + 40, ord("d")), (LINK + 41, 0), (7, 0)],
)
def test_load_reaches_the_headers_before_the_packet(offset: int, result: int) -> None:
    assert run((load(offset, isa.B), RETURN_A), ip_packet(34)) == result


@pytest.mark.parametrize(
    ("what", "result"), [(0, 0x800), (4, 4), (8, 1), (28, 772), (20, 0), (52, 0), (36, 0)]
)
def test_load_of_what_is_known_of_a_packet(what: int, result: int) -> None:
    assert run((load(ANCILLARY + what), RETURN_A), ip_packet(34)) == result


def test_payload_offset_counts_from_where_the_program_begins() -> None:
    udp = FRAME[:23] + b"\x11" + FRAME[24:]
    program = (load(ANCILLARY + 52), RETURN_A)

    found = [run(program, Packet(udp, at, 14, 0).of(0x800, 0, 1, 772)) for at in (0, 14, 34)]

    assert found == [42, 28, 8]


def test_random_numbers_differ() -> None:
    program = (load(ANCILLARY + 56), RETURN_A)

    assert len({run(program, Packet(b"x")) for _ in range(8)}) > 1


def test_filter_of_too_many_instructions_or_none_is_refused() -> None:
    for program in ((), (RETURN,) * 4097):
        assert not accepted(program)
    assert accepted((RETURN,) * 4096)


def test_filter_gives_back_the_code_that_it_was_made_of() -> None:
    code = pack((load(0), RETURN))

    assert PacketFilter(code).code == code
    assert CallFilter(code).count == 2


def test_filter_lives_as_long_as_one_that_runs_before_it() -> None:
    newest = stack([(Instruction(isa.RET, 0, 0, 0x50000 | n),) for n in range(500)])
    gc.collect()

    assert newest.run(0, 0, 0, NONE) & 0xFFFFFFFF == 0x50000 | 499
    assert [kept.depth for kept in newest] == list(range(500, 0, -1))


@pytest.mark.parametrize("what", [12, 16])
def test_search_for_attributes_has_a_bound_for_the_whole_run(what: int) -> None:
    packet = Packet(struct.pack("<HH", 4, 1) * 50_000)
    search = (Instruction(isa.LD, 0, 0, 0), load(ANCILLARY + what)) * 2000
    program = (Instruction(isa.LDX, 0, 0, 99), *search, RETURN)
    made = PacketFilter(pack(program))
    began = time.thread_time()

    made.run(packet)

    assert time.thread_time() - began < 0.01
