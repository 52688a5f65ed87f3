/* The exception stubs: 256 times HLT, STUB_STRIDE bytes apart. Each ends in an exit to the host,
 * which learns the vector from RIP and the rest from the frame on the stack. They never return:
 * the host gives the vCPU new registers.
 *
 * An undefined instruction is how a vCPU gets from one address space to another without an exit, if
 * the host has written to SWITCH_ROOT. It goes on in the tail of the entry code, whose page has the
 * same address there. What the registers hold is of no importance: a program in ring 3 may get here
 * by itself, and what it can reach is the other one's tail, where it would have been sent anyway.
 * Few instructions: PVM interprets them, half a microsecond each. */
#include "layout.h"

        .text
        .globl stubs, trap_ud, trap_switch, trap_end
stubs:
        .rept 256
        .balign STUB_STRIDE, 0xf4
        hlt
        .endr

#define AT(offset) (offset) - (PAGE_SIZE - 5 * 8)(%rsp)
        .balign 64, 0xf4
trap_ud:
        cmpq $0, AT(SWITCH_ROOT)
        je stubs + 6 * STUB_STRIDE
trap_switch:
        mov AT(SWITCH_ROOT), %rax
        mov %rax, %cr3
        movq $0, AT(SWITCH_ROOT)        /* the host learns that the old tables are not used any more */
        lea AT(SWITCH_FRAME), %rsp
        iretq
trap_end:
        .balign 64, 0xf4
