/* Accesses of the Sentry that survive SIGSEGV and SIGBUS: the host file behind a window may have
 * been truncated, or the memory limit reached.
 *
 * Each has one instruction that may fault. The signal handler moves RIP from it to the label
 * behind; registers then say what is left. Nothing else of the machine state matters. */
#define _GNU_SOURCE
#include "memory_internal.h"

#include <signal.h>
#include <ucontext.h>

extern const char guard_copy_at[], guard_copy_out[], guard_zero_at[], guard_zero_out[];
extern const char guard_load_at[], guard_load_out[], guard_cas_at[], guard_cas_out[];

__asm__(
    ".pushsection .text\n"
    ".globl guarded_copy\n.hidden guarded_copy\n.type guarded_copy,@function\n"
    ".hidden guard_copy_at\n.globl guard_copy_at\n.hidden guard_copy_out\n.globl guard_copy_out\n"
    "guarded_copy:\n"
    "    mov %rdx, %rcx\n"
    "guard_copy_at:\n"
    "    rep movsb\n"
    "guard_copy_out:\n"
    "    mov %rcx, %rax\n"
    "    ret\n"
    ".globl guarded_zero\n.hidden guarded_zero\n.type guarded_zero,@function\n"
    ".hidden guard_zero_at\n.globl guard_zero_at\n.hidden guard_zero_out\n.globl guard_zero_out\n"
    "guarded_zero:\n"
    "    mov %rsi, %rcx\n"
    "    xor %eax, %eax\n"
    "guard_zero_at:\n"
    "    rep stosb\n"
    "guard_zero_out:\n"
    "    mov %rcx, %rax\n"
    "    ret\n"
    ".globl guarded_load32\n.hidden guarded_load32\n.type guarded_load32,@function\n"
    ".hidden guard_load_at\n.globl guard_load_at\n.hidden guard_load_out\n.globl guard_load_out\n"
    "guarded_load32:\n"
    "    mov $1, %eax\n"
    "guard_load_at:\n"
    "    mov (%rdi), %ecx\n"
    "    mov %ecx, (%rsi)\n"
    "    xor %eax, %eax\n"
    "guard_load_out:\n"
    "    ret\n"
    ".globl guarded_cmpxchg32\n.hidden guarded_cmpxchg32\n"
    ".type guarded_cmpxchg32,@function\n"
    ".hidden guard_cas_at\n.globl guard_cas_at\n.hidden guard_cas_out\n.globl guard_cas_out\n"
    "guarded_cmpxchg32:\n"
    "    mov $1, %ecx\n"
    "    mov (%rsi), %eax\n"
    "guard_cas_at:\n"
    "    lock cmpxchg %edx, (%rdi)\n"
    "    mov %eax, (%rsi)\n"
    "    xor %ecx, %ecx\n"
    "guard_cas_out:\n"
    "    mov %ecx, %eax\n"
    "    ret\n"
    ".popsection\n");

static const struct {
    const char *at, *out;
} guards[] = {
    {guard_copy_at, guard_copy_out},
    {guard_zero_at, guard_zero_out},
    {guard_load_at, guard_load_out},
    {guard_cas_at, guard_cas_out},
};

static struct sigaction previous[2];

static void on_fault(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    for (size_t i = 0; i < sizeof guards / sizeof *guards; i++) {
        if (registers[REG_RIP] == (greg_t)(uintptr_t)guards[i].at) {
            registers[REG_RIP] = (greg_t)(uintptr_t)guards[i].out;
            return;
        }
    }
    /* Not ours, so a crash: the instruction repeats under the handler that was there before, and
     * if that one brings us back, under the default action. */
    static volatile sig_atomic_t crashed;
    struct sigaction fatal = {.sa_handler = SIG_DFL};
    sigaction(signal, crashed ? &fatal : &previous[signal == SIGBUS], NULL);
    crashed = 1;
    (void)info;
}

int guard_install(void)
{
    struct sigaction action = {.sa_sigaction = on_fault}, now;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; i++) {
        int signal = i ? SIGBUS : SIGSEGV;
        if (sigaction(signal, NULL, &now) < 0)
            return -1;
        if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault)
            continue;
        previous[i] = now;
        if (sigaction(signal, &action, NULL) < 0)
            return -1;
    }
    return 0;
}
