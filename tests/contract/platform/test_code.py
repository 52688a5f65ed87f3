"""Code that changes, interruptions between instructions, and the instructions CPUID promises."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sentry.platform.interface import ExitKind, Reg

CODE, DATA = 0x400000, 0x600000
READ, WRITE, EXECUTE = 1, 2, 4
ALIAS = 0x700000
MOV_EAX = b"\xb8"
"""mov $imm32, %eax: the byte behind it is the number of the call that follows."""


def test_program_sees_its_own_stores_into_code(machine: Any) -> None:
    context = machine.start("1: mov $7, %eax; syscall; incb 1b+1(%rip); jmp 1b")
    for number in (7, 8, 9):
        assert machine.syscall_of(context) == number
        context.answer(0)


def test_program_sees_stores_through_another_mapping(machine: Any) -> None:
    space = machine.space(f"1: mov $7, %eax; syscall; incb {ALIAS + 1}; jmp 1b")
    space.map_frames(ALIAS, space.translate(CODE), 1, READ | WRITE)
    context = machine.context(space)
    context.resume()
    for number in (7, 8, 9):
        assert machine.syscall_of(context) == number
        context.answer(0)


def test_program_sees_what_the_kernel_writes_into_code(machine: Any) -> None:
    context = machine.start("1: mov $7, %eax; syscall; jmp 1b")
    for number in (7, 20, 33):
        assert machine.syscall_of(context) == number
        context.owner.write(CODE, MOV_EAX + (number + 13).to_bytes(4, "little"))
        context.answer(0)


def test_program_sees_new_code_where_old_code_was_unmapped(machine: Any) -> None:
    space = machine.space(f"1: mov ${ALIAS}, %rax; call *%rax; syscall; jmp 1b")
    context = machine.context(space)
    for number in (7, 8, 9):
        space.map_anonymous(ALIAS, 1, READ | WRITE | EXECUTE)
        space.write(ALIAS, MOV_EAX + number.to_bytes(4, "little") + b"\xc3")
        context.resume()
        assert machine.syscall_of(context) == number
        space.unmap(ALIAS, 1)


def test_address_spaces_with_other_code_at_the_same_place_take_turns(machine: Any) -> None:
    contexts = [machine.start(f"1: mov ${number}, %eax; syscall; jmp 1b") for number in (7, 8)]
    calls: dict[int, int] = {7: 0, 8: 0}
    while min(calls.values()) < 50:
        context = machine.any_exit()
        if context.exit == ExitKind.SYSCALL:
            number = context.regs[Reg.ORIG_RAX]
            assert context is contexts[number - 7]
            calls[number] += 1
        context.resume()


def test_interruption_leaves_no_instruction_half_done(machine: Any) -> None:
    context = machine.start("1: inc %rbx; incq DATA; push %rbx; pop %rcx; jmp 1b", rbx=0)
    counts = set()
    for _ in range(200):
        machine.platform.wait(time.monotonic_ns() + 50_000)
        context.kick()
        assert machine.any_exit() is context
        assert context.exit == ExitKind.INTERRUPTED
        count = int.from_bytes(context.owner.read(DATA, 8), "little")
        counts.add(count)
        assert context.regs[Reg.RBX] - count == (3 <= context.regs[Reg.RIP] - CODE < 11)
        context.resume()
    assert len(counts) > 1


def test_store_across_pages_is_not_half_done_by_a_fault(machine: Any) -> None:
    space = machine.space(
        f"addq $1, {ALIAS + 0xFFC}; mov {ALIAS + 0xFFC}, %rdi; mov $7,%eax; syscall"
    )
    space.map_anonymous(ALIAS, 2, READ | WRITE)
    space.write(ALIAS + 0xFFC, (0xFFFFFFFF).to_bytes(8, "little"))
    space.protect(ALIAS + 0x1000, 1, READ)
    context = machine.context(space)
    context.resume()

    assert machine.exit_of(context) == ExitKind.FAULT
    assert (context.fault_addr, context.error_code) == (ALIAS + 0x1000, 7)
    assert context.regs[Reg.RIP] == CODE
    assert space.read(ALIAS + 0xFFC, 8) == (0xFFFFFFFF).to_bytes(8, "little")

    space.protect(ALIAS + 0x1000, 1, READ | WRITE)
    context.resume()
    assert machine.syscall_of(context) == 7
    assert context.regs[Reg.RDI] == 0x100000000


def test_fault_in_the_middle_of_a_page_names_the_byte(machine: Any) -> None:
    space = machine.space(f"mov $5, %ecx; rep stosb; movups %xmm0, {ALIAS + 0x123}")
    space.map_anonymous(ALIAS - 0x1000, 1, READ | WRITE)
    context = machine.context(space, rdi=ALIAS - 3)
    context.resume()

    assert machine.exit_of(context) == ExitKind.FAULT
    assert (context.fault_addr, context.regs[Reg.RCX]) == (ALIAS, 2)

    context.regs[Reg.RIP] += 2  # the length of REP STOSB
    context.resume()
    assert machine.exit_of(context) == ExitKind.FAULT
    assert context.fault_addr == ALIAS + 0x123


@pytest.mark.parametrize("instruction", ["in $0x80, %al", "outb %al, $0x80", "in %dx, %eax", "sti"])
def test_privileged_instruction_changes_no_register(machine: Any, instruction: str) -> None:
    context = machine.start(f"mov $5, %eax; 1: {instruction}; mov $6, %eax; mov $7, %ebx; ud2")

    assert machine.exit_of(context) == ExitKind.EXCEPTION

    assert (context.vector, context.error_code) == (13, 0)
    assert (context.regs[Reg.RIP], context.regs[Reg.RAX]) == (CODE + 5, 5)
    assert context.regs[Reg.RBX] == 0


def test_sysenter_does_not_enter(machine: Any) -> None:
    context = machine.start("sysenter; mov $7, %eax; syscall")

    assert machine.exit_of(context) == ExitKind.EXCEPTION
    assert context.vector in {6, 13}


FEATURES = {
    # leaf, register, bit: an instruction of it
    (1, "ecx", 0): "haddps %xmm0, %xmm0",
    (1, "ecx", 1): "pclmulqdq $0, %xmm0, %xmm0",
    (1, "ecx", 9): "pshufb %xmm0, %xmm0",
    (1, "ecx", 12): "vfmadd231ps %xmm0, %xmm0, %xmm0",
    (1, "ecx", 13): "lock cmpxchg16b (%rsp)",
    (1, "ecx", 19): "pmulld %xmm0, %xmm0",
    (1, "ecx", 20): "pcmpistri $0, %xmm0, %xmm0",
    (1, "ecx", 22): "movbe (%rsp), %eax",
    (1, "ecx", 23): "popcnt %eax, %eax",
    (1, "ecx", 25): "aesenc %xmm0, %xmm0",
    (1, "ecx", 27): "xor %ecx, %ecx; xgetbv",
    (1, "ecx", 28): "vaddps %ymm0, %ymm0, %ymm0",
    (1, "ecx", 29): "vcvtph2ps %xmm0, %ymm0",
    (1, "ecx", 30): "rdrand %rax",
    (1, "edx", 4): "rdtsc",
    (1, "edx", 24): "fxsave64 (%rsp); fxrstor64 (%rsp)",
    (7, "ebx", 0): "rdfsbase %rax; wrgsbase %rax",
    (7, "ebx", 3): "andn %rax, %rax, %rax; tzcnt %rax, %rax",
    (7, "ebx", 5): "vpaddd %ymm0, %ymm0, %ymm0",
    (7, "ebx", 8): "mulx %rax, %rax, %rcx; pdep %rax, %rax, %rax",
    (7, "ebx", 9): "mov %rsp, %rdi; mov $16, %ecx; rep stosb",
    (7, "ebx", 16): "vpaddd %zmm0, %zmm0, %zmm0",
    (7, "ebx", 18): "rdseed %rax",
    (7, "ebx", 19): "adcx %rax, %rax; adox %rax, %rax",
    (7, "ebx", 23): "clflushopt (%rsp)",
    (7, "ebx", 24): "clwb (%rsp)",
    (7, "ebx", 29): "sha1nexte %xmm0, %xmm0",
    (7, "ecx", 8): "gf2p8mulb %xmm0, %xmm0",
    (7, "ecx", 22): "rdpid %rax",
    (0x80000001, "ecx", 5): "lzcnt %rax, %rax",
    (0x80000001, "ecx", 6): "extrq $1, $1, %xmm0",
    (0x80000001, "ecx", 8): "prefetchw (%rsp)",
    (0x80000001, "edx", 27): "rdtscp",
}


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f"{f[0]:x}-{f[1]}-{f[2]}")
def test_feature_that_cpuid_shows_works(machine: Any, feature: tuple[int, str, int]) -> None:
    leaf, register, bit = feature
    context = machine.start(
        f"sub $512, %rsp; mov ${leaf}, %eax; xor %ecx, %ecx; cpuid; mov %{register}, %esi;"
        f"bt ${bit}, %esi; jnc 1f; {FEATURES[feature]}; 1: mov $7, %eax; syscall"
    )

    assert machine.syscall_of(context) == 7


def test_state_that_xcr0_enables_is_in_the_image(machine: Any) -> None:
    context = machine.start(
        "mov $13, %eax; xor %ecx, %ecx; cpuid; mov %ebx, %edi; xor %ecx, %ecx; xgetbv;"
        "mov %eax, %esi; mov $7, %eax; syscall"
    )

    assert machine.syscall_of(context) == 7

    shown = machine.platform.xfeatures  # PVM cannot hide what else the host has in XCR0
    assert context.regs[Reg.RSI] & shown == shown
    assert context.regs[Reg.RDI] == machine.platform.xsave_size


OPERANDS = {
    f"mov %eax, {ALIAS + 5}": ALIAS + 5,
    "mov 7(%rbx), %al": ALIAS + 7,
    "movb $1, -1(%r13)": ALIAS + 0x20 - 1,
    "addl $0x12345678, 0x10(%r12)": ALIAS + 0x31,
    "mov -8(%rbx,%rcx,8), %rax": ALIAS + 0x10,
    "movq $1, 0x60(,%r9,4)": ALIAS + 0x60,
    f"addw $0x1234, {ALIAS - CODE}(%rip)": ALIAS + 5 + 9,
    f"movb $1, {ALIAS - CODE}(%rip)": ALIAS + 5 + 7,
    "incb %fs:0x11": ALIAS + 0x111,
    "mov %gs:(%rcx), %eax": ALIAS + 0x203,
    "addr32 mov (%ebx), %eax": ALIAS,
    f"movabs {ALIAS + 0x33}, %al": ALIAS + 0x33,
    "mov %r14, %rsp; push %rax": ALIAS + 0x58,
    "mov %r14, %rsp; pop %rax": ALIAS + 0x60,
    "mov %r14, %rsp; call 1f; 1:": ALIAS + 0x58,
    "pushq 0x20(%rbx)": ALIAS + 0x20,
    "mov %rbx, %rsi; lea DATA, %rdi; movsl": ALIAS,
    "mov %r13, %rdi; lea DATA, %rsi; movsb": ALIAS + 0x20,
    "mov %r13, %rdi; scasb": ALIAS + 0x20,
    "mov $3, %eax; xlat": ALIAS + 3,
    "mov %r13, %rbp; leave": ALIAS + 0x20,
    "lock cmpxchg %ecx, 4(%rbx)": ALIAS + 4,
    "lock cmpxchg16b 0x10(%rbx)": ALIAS + 0x10,
    "movups %xmm9, 0x123(%rbx)": ALIAS + 0x123,
    "pshufd $1, 0x40(%rbx), %xmm1": ALIAS + 0x40,
    "pshufb 0x50(%rbx), %xmm1": ALIAS + 0x50,
    "palignr $2, 0x60(%rbx), %xmm1": ALIAS + 0x60,
    "fldl 0x21(%rbx)": ALIAS + 0x21,
    "testl $5, 0x22(%rbx)": ALIAS + 0x22,
    "movzwl 0x23(%rbx), %eax": ALIAS + 0x23,
    "setc 0x24(%rbx)": ALIAS + 0x24,
    "imul $7, 0x28(%rbx), %eax": ALIAS + 0x28,
    "shldl $3, %eax, 0x2c(%rbx)": ALIAS + 0x2C,
}


@pytest.mark.parametrize("source", OPERANDS)
def test_page_fault_names_the_operand(machine: Any, source: str) -> None:
    space = machine.space(f"mov $0x100, %edx; {source}; ud2")
    context = machine.context(
        space, rbx=ALIAS, rcx=3, r9=ALIAS // 4, r12=ALIAS + 0x21, r13=ALIAS + 0x20,
        r14=ALIAS + 0x60, fs_base=ALIAS + 0x100, gs_base=ALIAS + 0x200,
    )  # fmt: skip
    context.resume()

    assert machine.exit_of(context) == ExitKind.FAULT

    assert hex(context.fault_addr) == hex(OPERANDS[source])
