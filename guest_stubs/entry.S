/* The code behind SYSCALL: one page, position independent, assembled twice.
 *
 * ENTRY_RING3 defined: for a KVM on which SYSCALL stays in ring 3 (PVM). The flags are the
 * program's own and nobody saved them for us, so until they are restored from S only instructions
 * that leave flags alone are used: mov, lea, jrcxz, pause, xchg. The way back is a jump.
 * Not defined: ring 0, back with iretq (or sysretq for the calls answered here).
 *
 * The host may interrupt this code anywhere and must then know where the program's registers are.
 * The labels below cut it into the ranges that sentry/platform/native/exits.c tells apart:
 *   entry        .. entry_rcx    all live
 *   entry_rcx    .. entry_fast   live, but RIP and RCX are in S
 *   entry_fast   .. entry_fret   blocks of 16 bytes: at the first byte as before, else RAX answered
 *   entry_fret   .. entry_slow   RAX answered, RIP in S
 *   entry_slow   .. entry_saved  as entry_rcx
 *   entry_saved  .. entry_spin   a system call, registers in S
 *   entry_spin   .. entry_rang   the same, answered if S_WORD is 0
 *   entry_rang                   the same, answered if RCX is 0
 *   entry_door                   the same
 *   entry_tail   .. entry_end    on the way back: registers are what the host gave
 */
#include "layout.h"

#define S(offset) entry + ENTRY_PAGE_S + (offset)(%rip)
#define REG(index) S(S_REGS + 8 * (index))

        .text
        .globl entry, entry_rcx, entry_fast, entry_fret, entry_slow, entry_saved
        .globl entry_spin, entry_rang, entry_door, entry_after, entry_tail, entry_end

entry:
        mov %rcx, REG(R_RIP)
entry_rcx:
        mov S(S_FAST), %rcx
        jrcxz to_slow
        lea -39(%rax), %rcx             /* getpid */
        jrcxz fast_getpid
        lea -186(%rax), %rcx
        jrcxz fast_gettid
        lea -102(%rax), %rcx
        jrcxz fast_getuid
        lea -107(%rax), %rcx
        jrcxz fast_geteuid
        lea -104(%rax), %rcx
        jrcxz fast_getgid
        lea -108(%rax), %rcx
        jrcxz fast_getegid
        lea -24(%rax), %rcx
        jrcxz fast_sched_yield
to_slow:
        jmp entry_slow
fast_sched_yield:
        mov S(S_YIELD), %rcx
        jrcxz to_slow
        jmp yield_now

        .macro answer name, offset
        .balign 16, 0x90
\name:  mov S(\offset), %rax
        jmp entry_fret
        .endm

        .balign 16, 0x90
entry_fast:
        answer fast_getpid, S_PID
        answer fast_gettid, S_TID
        answer fast_getuid, S_UID
        answer fast_geteuid, S_EUID
        answer fast_getgid, S_GID
        answer fast_getegid, S_EGID
        .balign 16, 0x90
yield_now:
        mov $0, %eax
        jmp entry_fret
        .balign 16, 0x90
entry_fret:
        mov REG(R_RIP), %rcx
#ifdef ENTRY_RING3
        jmp *%rcx
#else
        sysretq
#endif

entry_slow:
        mov %rax, REG(R_RAX)
        mov %rax, REG(R_ORIG_RAX)
        mov %rdi, REG(R_RDI)
        mov %rsi, REG(R_RSI)
        mov %rdx, REG(R_RDX)
        mov %r10, REG(R_R10)
        mov %r8, REG(R_R8)
        mov %r9, REG(R_R9)
        mov %rsp, REG(R_RSP)
        mov %rbx, REG(R_RBX)
        mov %rbp, REG(R_RBP)
        mov %r12, REG(R_R12)
        mov %r13, REG(R_R13)
        mov %r14, REG(R_R14)
        mov %r15, REG(R_R15)
        mov %r11, REG(R_R11)
        mov %r11, REG(R_RFLAGS)
        mov REG(R_RIP), %rcx
        mov %rcx, REG(R_RCX)
        rdfsbase %rcx
        mov %rcx, REG(R_FS_BASE)
        rdgsbase %rcx
        mov %rcx, REG(R_GS_BASE)
entry_saved:
        mov $XFEATURES, %eax
        mov $0, %edx
        xsave64 S(S_XSAVE)
        mov S(S_BUDGET), %r11
        mov %r11, %rcx
        jrcxz entry_door
        movl $WORD_REQUEST, S(S_WORD)
entry_spin:
        mov S(S_WORD), %ecx
        jrcxz entry_tail
        mov S(S_BUDGET), %rcx           /* the host needs this core, or goes to sleep */
        jrcxz expired
        pause
        lea -1(%r11), %r11
        mov %r11, %rcx
        jrcxz longer
        jmp entry_spin
longer:
        mov S(S_MORE), %r11
        mov %r11, %rcx
        jrcxz expired
        movq $0, S(S_MORE)
        jmp entry_spin
expired:
        mov $WORD_RINGING, %ecx
        xchg %ecx, S(S_WORD)
entry_rang:
        jrcxz entry_tail
entry_door:
#ifdef ENTRY_RING3
        mov %eax, entry + ENTRY_PAGE_DOORBELL(%rip)
#else
        out %al, $DOORBELL_PORT
#endif
entry_after:

entry_tail:
        mov S(S_TAIL), %rcx
        jrcxz plain
        test $TAIL_LEAVE, %ecx          /* flags are free from here: they are loaded below */
        jnz leave
        test $TAIL_BASES, %ecx
        jz 1f
        mov REG(R_FS_BASE), %rax
        wrfsbase %rax
        mov REG(R_GS_BASE), %rax
        wrgsbase %rax
1:      test $TAIL_FPU, %ecx
        jz 2f
        mov $XFEATURES_LOADED, %eax
        mov $0, %edx
        xrstor64 S(S_XSAVE)
        test $TAIL_TILES, %ecx
        jz 2f
        tilerelease
2:      movq $0, S(S_TAIL)
#ifdef ENTRY_RING3
        lea REG(R_RFLAGS), %rsp
        popfq
#endif
plain:
        mov REG(R_RAX), %rax
        mov REG(R_RDI), %rdi
        mov REG(R_RSI), %rsi
        mov REG(R_RDX), %rdx
        mov REG(R_R10), %r10
        mov REG(R_R8), %r8
        mov REG(R_R9), %r9
        mov REG(R_RBX), %rbx
        mov REG(R_RBP), %rbp
        mov REG(R_R12), %r12
        mov REG(R_R13), %r13
        mov REG(R_R14), %r14
        mov REG(R_R15), %r15
        mov REG(R_R11), %r11
        mov REG(R_RCX), %rcx
#ifdef ENTRY_RING3
        mov REG(R_RSP), %rsp
        jmp *REG(R_RIP)
#else
        lea REG(R_RIP), %rsp
        iretq
#endif

leave:                                  /* the host keeps the registers; see exceptions.S */
        movq $0, S(S_TAIL)
        mov $SEL_USER_DS, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %fs
        mov %eax, %gs
#ifdef ENTRY_RING3
        mov $XFEATURES_LOADED, %eax     /* the next program might keep its tail from loading these */
        mov $0, %edx
        xrstor64 S(S_XSAVE)
        test $TAIL_TILES, %ecx
        jz 3f
        tilerelease
3:      xor %eax, %eax
        wrfsbase %rax
        wrgsbase %rax
#endif
        ud2
entry_end:
