/* What the start-up probe runs: `probe_entry` stands behind LSTAR, the others are programs. */
#include "layout.h"

        .text
        .globl probe_entry, probe_syscall, probe_read
probe_entry:                            /* an entry page of its own: which ring are we in? */
        mov %cs, %edx
        mov %eax, probe_entry + ENTRY_PAGE_DOORBELL(%rip)
        hlt

        .balign 64
probe_syscall:
        syscall
        ud2

        .balign 64
probe_read:                             /* what does the address in RDI hold? */
        mov (%rdi), %rax
        syscall
        ud2
