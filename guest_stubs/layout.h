/* What the guest's entry code and the host agree on. Read by the assembler and by C.
 *
 * Every vCPU has three neighbouring pages at the top of user space (docs/design.md): the entry
 * page (one frame of code for all vCPUs, reached through each one's own address), its save page S
 * and its doorbell. The code finds S relative to RIP, so it needs neither a stack nor GS.
 */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#include "memory_map.h"

#define ENTRY_STRIDE 0x4000
#define MAX_VCPUS 128

#define ENTRY_PAGE_S 0x1000        /* offset of S from the entry page */
#define ENTRY_PAGE_DOORBELL 0x2000 /* offset of the doorbell */
#define DOORBELL_PORT 0xf0         /* instead of the page where the entry code runs in ring 0 */

/* ---- S ---- */
#define S_WORD 0x00   /* u32: WORD_*. The guest spins on it: nothing else that is written often */
#define S_BUDGET 0x08 /* turns to spin for an answer before the doorbell; 0: do not, or stop */
#define S_MORE 0x18   /* turns to go on after those; the guest takes them once */
#define S_YIELD 0x10  /* not 0: the entry code answers sched_yield */
#define S_FAST 0x40   /* not 0: the entry code answers the calls below itself */
#define S_PID 0x48
#define S_TID 0x50
#define S_UID 0x58
#define S_EUID 0x60
#define S_GID 0x68
#define S_EGID 0x70
#define S_TAIL 0x78   /* TAIL_*: what the way back has to restore besides the registers */
#define S_REGS 0x80   /* struct user_regs_struct; RIP CS RFLAGS RSP SS in it form an iretq frame */
#define S_XSAVE 0x400 /* FPU image, standard format */
#define S_XSAVE_MAX 0xc00
/* The components of that image at most: x87, SSE, AVX, the three parts of AVX-512. In ring 3 on PVM
 * the host's XCR0 is in force, which may have more than the guest was given, so XSAVE and XRSTOR
 * name what they mean. No program is told of protection keys and AMX, yet where it can use them the
 * next one must not find what it left: loading an image clears PKRU, and TAIL_TILES the 8 KiB of
 * AMX, for which there is no room here. */
#define XFEATURES 0xe7
#define XFEATURES_LOADED (XFEATURES | 1 << 9)

#define WORD_IDLE 0
#define WORD_REQUEST 1  /* the guest waits for an answer */
#define WORD_RINGING 3  /* the guest gave up waiting and rings the doorbell */

#define TAIL_FPU 1   /* load S_XSAVE */
#define TAIL_BASES 2 /* load FS and GS base */
#define TAIL_FLAGS 4 /* load RFLAGS (any other bit does that too) */
#define TAIL_TILES 16 /* with TAIL_FPU or TAIL_LEAVE: clear the tiles of AMX */
#define TAIL_LEAVE 8 /* nothing: on to another address space, by an undefined instruction */

/* Index of a register in S_REGS: the order of struct user_regs_struct, <asm/user_64.h>. */
#define R_R15 0
#define R_R14 1
#define R_R13 2
#define R_R12 3
#define R_RBP 4
#define R_RBX 5
#define R_R11 6
#define R_R10 7
#define R_R9 8
#define R_R8 9
#define R_RAX 10
#define R_RCX 11
#define R_RDX 12
#define R_RSI 13
#define R_RDI 14
#define R_ORIG_RAX 15
#define R_RIP 16
#define R_CS 17
#define R_RFLAGS 18
#define R_RSP 19
#define R_SS 20
#define R_FS_BASE 21
#define R_GS_BASE 22
#define R_DS 23
#define R_ES 24
#define R_FS 25
#define R_GS 26
#define NUM_REGS 27

/* ---- the supervisor's pages, PML4 entry 256 of every address space, from HIGH_BASE ---- */
#define HIGH_GDT 0x0000
#define HIGH_IDT 0x1000
#define HIGH_STUBS 0x2000    /* 256 exception stubs */
#define HIGH_VCPU 0x100000   /* per vCPU: a page with its TSS, a page of exception stack */
#define HIGH_VCPU_STRIDE 0x2000
#define STUB_STRIDE 8
/* The start of the exception stack is the host's. */
#define SWITCH_ROOT 0x00  /* the address space that #UD changes to; 0: #UD is an exception */
#define SWITCH_FRAME 0x08 /* the frame with which it goes on there */

/* Selectors, the same as Linux's own: the program can read them. */
#define SEL_KERNEL_CS 0x10
#define SEL_KERNEL_DS 0x18
#define SEL_USER32_CS 0x23
#define SEL_USER_DS 0x2b
#define SEL_USER_CS 0x33
#define SEL_TSS 0x40

#endif
