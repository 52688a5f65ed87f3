/* The exception stubs: 256 times HLT, STUB_STRIDE bytes apart. Each ends in an exit to the host,
 * which learns the vector from RIP and the rest from the frame on the stack. They never return:
 * the host gives the vCPU new registers. */
#include "layout.h"

        .text
        .globl stubs
stubs:
        .rept 256
        .balign STUB_STRIDE, 0xf4
        hlt
        .endr
        .balign STUB_STRIDE, 0xf4
