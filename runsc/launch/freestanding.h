/* What the programs of this folder have instead of a C library. */
#ifndef RUNSC_FREESTANDING_H
#define RUNSC_FREESTANDING_H

#include <sys/syscall.h>

static inline long call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = 0; /* prctl(2) wants it so */
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

/* The program begins with `name`, called with argv[0]: the stack begins with argc and argv. */
#define BEGINS_WITH(name) \
    __asm__(".globl _start\n_start:\n" \
            "    mov 8(%rsp), %rdi\n" \
            "    and $-16, %rsp\n" \
            "    call " #name "\n")

#endif
