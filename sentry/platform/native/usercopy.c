/* The Sentry's own accesses to user memory.
 *
 * Every access walks the program's page tables (present, user, writable) and then touches the
 * frame through a copy that survives SIGSEGV and SIGBUS: the host file behind a window may have
 * been truncated, or the memory limit reached. A function returns how far it came; `fault` says
 * which address stopped it and why. Repairing is sentry.mm's business.
 */
#define _GNU_SOURCE
#include "memory_internal.h"
#include "memory_api.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define MAX_IOV 256

/* ---- guarded accesses ----------------------------------------------------------------------- */

/* Each has one instruction that may fault. The signal handler moves RIP from it to the label
 * behind; registers then say what is left. Nothing else of the machine state matters. */
extern const char guard_copy_at[], guard_copy_out[], guard_zero_at[], guard_zero_out[];
extern const char guard_load_at[], guard_load_out[], guard_cas_at[], guard_cas_out[];

size_t guarded_load32(const void *at, uint32_t *value);
size_t guarded_cmpxchg32(void *at, uint32_t *expected, uint32_t desired);

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

/* ---- from user addresses to host memory ------------------------------------------------------ */

/* Host address of va, and in *room how many bytes from it the same entry covers. NULL: fault. */
static uint8_t *reach(struct aspace *as, uint64_t va, int write, uint64_t *room)
{
    const uint64_t need = PTE_P | PTE_U | (write ? PTE_W : 0);
    if (va >= TASK_SIZE)
        return NULL;
    uint64_t at = as->root;
    for (int level = 4; level >= 1; level--) {
        const uint64_t *table = (const uint64_t *)(ram.base + at);
        uint64_t entry =
            __atomic_load_n(table + (va >> (3 + 9 * level) & 511), __ATOMIC_ACQUIRE);
        if (!(entry & PTE_P))
            return NULL;
        if (level > 1 && !(level == 2 && (entry & PTE_PS))) {
            at = entry & PTE_ADDR;
            continue;
        }
        if ((entry & need) != need || !(entry & (PTE_RAM | PTE_FILE)))
            return NULL;
        if (write && !(entry & PTE_NX))
            ram_counters.code_changes++;
        uint64_t size = level == 2 ? BLOCK_SIZE : PAGE_SIZE, inside = va & (size - 1);
        *room = size - inside;
        return frame_host(entry & PTE_ADDR & ~(size - 1)) + inside;
    }
    return NULL;
}

static void set_fault(struct fault *fault, uint64_t addr, int write, int gone)
{
    fault->addr = addr;
    fault->write = write;
    fault->gone = gone;
}

/* The next piece of a copy: at most `left` bytes. NULL after setting the fault. */
static uint8_t *piece(struct aspace *as, uint64_t va, uint64_t left, int write, uint64_t *some,
                      struct fault *fault)
{
    uint8_t *at = reach(as, va, write, some);
    if (!at)
        set_fault(fault, va, write, 0);
    else if (*some > left)
        *some = left;
    return at;
}

int64_t user_read(struct aspace *as, uint64_t va, void *to, uint64_t n, struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 0, &some, fault);
        if (!at)
            break;
        uint64_t left = guarded_copy((uint8_t *)to + done, at, some);
        done += some - left;
        if (left) {
            set_fault(fault, va + done, 0, 1);
            break;
        }
    }
    return (int64_t)done;
}

int64_t user_write(struct aspace *as, uint64_t va, const void *from, uint64_t n,
                   struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 1, &some, fault);
        if (!at)
            break;
        uint64_t left = guarded_copy(at, (const uint8_t *)from + done, some);
        done += some - left;
        if (left) {
            set_fault(fault, va + done, 1, 1);
            break;
        }
    }
    return (int64_t)done;
}

int64_t user_zero(struct aspace *as, uint64_t va, uint64_t n, struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 1, &some, fault);
        if (!at)
            break;
        uint64_t left = guarded_zero(at, some);
        done += some - left;
        if (left) {
            set_fault(fault, va + done, 1, 1);
            break;
        }
    }
    return (int64_t)done;
}

/* Copy up to `limit` bytes, the first NUL included if there is one; see whether the last byte
 * copied is NUL. */
int64_t user_string(struct aspace *as, uint64_t va, void *to, uint64_t limit, struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < limit) {
        uint64_t page = PAGE_SIZE - ((va + done) & (PAGE_SIZE - 1));
        uint8_t *at = piece(as, va + done, limit - done < page ? limit - done : page, 0, &some,
                            fault);
        if (!at)
            break;
        if (some > 256)
            some = 256;
        uint8_t *here = (uint8_t *)to + done;
        uint64_t left = guarded_copy(here, at, some), copied = some - left;
        const uint8_t *nul = memchr(here, 0, copied);
        if (nul)
            return (int64_t)(done + (uint64_t)(nul - here) + 1);
        done += copied;
        if (left) {
            set_fault(fault, va + done, 0, 1);
            break;
        }
    }
    return (int64_t)done;
}

/* How many bytes from va on can be accessed, as far as the page tables say. */
int64_t user_check(struct aspace *as, uint64_t va, uint64_t n, int write, struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < n && piece(as, va + done, n - done, write, &some, fault))
        done += some;
    return (int64_t)done;
}

/* ---- host descriptors ------------------------------------------------------------------------ */

static int gather(struct aspace *as, uint64_t va, uint64_t n, int write, struct iovec *iov,
                  int max, uint64_t *covered, struct fault *fault)
{
    int count = 0;
    uint64_t some;
    *covered = 0;
    while (*covered < n) {
        uint8_t *at = piece(as, va + *covered, n - *covered, write, &some, fault);
        if (!at)
            break;
        if (count && (uint8_t *)iov[count - 1].iov_base + iov[count - 1].iov_len == at) {
            iov[count - 1].iov_len += some;
        } else {
            if (count == max)
                break;
            iov[count].iov_base = at;
            iov[count++].iov_len = some;
        }
        *covered += some;
    }
    return count;
}

static int64_t transfer(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n,
                        int flags, int to_user, struct fault *fault)
{
    struct iovec iov[MAX_IOV];
    uint64_t done = 0, covered;
    set_fault(fault, 0, to_user, 0);
    do {
        int count = gather(as, va + done, n - done, to_user, iov, MAX_IOV, &covered, fault);
        if (!count && n)
            return done ? (int64_t)done : -EFAULT;
        off_t at = offset < 0 ? -1 : offset + (off_t)done;
        ssize_t got = to_user ? preadv2(fd, iov, count, at, flags)
                              : pwritev2(fd, iov, count, at, flags);
        if (got < 0) {
            if (errno == EFAULT)
                set_fault(fault, va + done, to_user, 1);
            return done ? (int64_t)done : -errno;
        }
        done += (uint64_t)got;
        if ((uint64_t)got < covered)
            break;
        /* A stream answers once: asking again could wait for more. */
    } while (done < n && offset >= 0);
    return (int64_t)done;
}

int64_t user_preadv(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n, int flags,
                    struct fault *fault)
{
    return transfer(as, fd, offset, va, n, flags, 1, fault);
}

int64_t user_pwritev(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n,
                     int flags, struct fault *fault)
{
    return transfer(as, fd, offset, va, n, flags, 0, fault);
}

/* Host memory of a user range for I/O on another thread, a pin on every frame. Windows are left
 * out: their mapping may go. Number of pieces; *covered bytes. */
int user_pin(struct aspace *as, uint64_t va, uint64_t n, int write, struct iovec *iov, int max,
             uint64_t *covered, struct fault *fault)
{
    int count = gather(as, va, n, write, iov, max, covered, fault);
    for (int i = 0; i < count; i++) {
        uint8_t *base = iov[i].iov_base;
        if (base < ram.base || base >= ram.base + ram.span) {
            uint64_t before = 0;
            for (int k = 0; k < i; k++)
                before += iov[k].iov_len;
            *covered = before;
            return i;
        }
        uint64_t first = (uint64_t)(base - ram.base) & ~(PAGE_SIZE - 1);
        for (uint64_t gpa = first; gpa < (uint64_t)(base - ram.base) + iov[i].iov_len;
             gpa += PAGE_SIZE)
            frame_pin(gpa);
    }
    return count;
}

void user_unpin(const struct iovec *iov, int count)
{
    ram_counters.code_changes++; /* what was read in may be code */
    for (int i = 0; i < count; i++) {
        uint64_t start = (uint64_t)((uint8_t *)iov[i].iov_base - ram.base);
        for (uint64_t gpa = start & ~(PAGE_SIZE - 1); gpa < start + iov[i].iov_len;
             gpa += PAGE_SIZE)
            frame_unpin(gpa);
    }
}

/* ---- atomics ---------------------------------------------------------------------------------- */

int user_load32(struct aspace *as, uint64_t va, uint32_t *value, struct fault *fault)
{
    uint64_t some;
    uint8_t *at = va & 3 ? NULL : piece(as, va, 4, 0, &some, fault);
    if (!at)
        return va & 3 ? -EINVAL : -EFAULT;
    if (!guarded_load32(at, value))
        return 0;
    set_fault(fault, va, 0, 1);
    return -EFAULT;
}

/* 0 and the old value in *expected; it was stored if that equals what the caller expected. */
int user_cmpxchg32(struct aspace *as, uint64_t va, uint32_t *expected, uint32_t desired,
                   struct fault *fault)
{
    uint64_t some;
    uint8_t *at = va & 3 ? NULL : piece(as, va, 4, 1, &some, fault);
    if (!at)
        return va & 3 ? -EINVAL : -EFAULT;
    if (!guarded_cmpxchg32(at, expected, desired))
        return 0;
    set_fault(fault, va, 1, 1);
    return -EFAULT;
}

/* The atomic part of FUTEX_WAKE_OP, futex(2). */
int user_futex_op(struct aspace *as, uint64_t va, int op, uint32_t operand, uint32_t *old,
                  struct fault *fault)
{
    uint32_t seen, wanted;
    int error = user_load32(as, va, &seen, fault);
    while (!error) {
        switch (op) {
        case FUTEX_OP_SET:
            wanted = operand;
            break;
        case FUTEX_OP_ADD:
            wanted = seen + operand;
            break;
        case FUTEX_OP_OR:
            wanted = seen | operand;
            break;
        case FUTEX_OP_ANDN:
            wanted = seen & ~operand;
            break;
        case FUTEX_OP_XOR:
            wanted = seen ^ operand;
            break;
        default:
            return -ENOSYS;
        }
        *old = seen;
        error = user_cmpxchg32(as, va, &seen, wanted, fault);
        if (!error && seen == *old)
            return 0;
    }
    return error;
}

/* ---- bytes of frames --------------------------------------------------------------------------- */

enum frame_access { READ_FRAMES, WRITE_FRAMES, ZERO_FRAMES };

static uint64_t frames_access(const uint64_t *gpas, uint64_t offset, uint8_t *bytes, uint64_t n,
                              enum frame_access what)
{
    while (n) {
        uint64_t gpa = gpas[offset >> PAGE_SHIFT], inside = offset & (PAGE_SIZE - 1);
        uint64_t some = PAGE_SIZE - inside < n ? PAGE_SIZE - inside : n, left = 0;
        if (gpa >= ram.span)
            return n;
        if (!gpa && what == READ_FRAMES)
            memset(bytes, 0, some);
        else if (!gpa)
            left = what == ZERO_FRAMES ? 0 : some;
        else if (what == READ_FRAMES)
            left = guarded_copy(bytes, ram.base + gpa + inside, some);
        else if (what == WRITE_FRAMES)
            left = guarded_copy(ram.base + gpa + inside, bytes, some);
        else
            left = guarded_zero(ram.base + gpa + inside, some);
        if (what != READ_FRAMES && gpa && references[frame_index(gpa)] > 1)
            ram_counters.code_changes++; /* somebody has it mapped */
        if (left)
            return n - (some - left);
        offset += some;
        n -= some;
        if (bytes)
            bytes += some;
    }
    return 0;
}

uint64_t frames_read(const uint64_t *gpas, uint64_t offset, void *to, uint64_t n)
{
    return frames_access(gpas, offset, to, n, READ_FRAMES);
}

uint64_t frames_write(const uint64_t *gpas, uint64_t offset, const void *from, uint64_t n)
{
    return frames_access(gpas, offset, (uint8_t *)from, n, WRITE_FRAMES);
}

uint64_t frames_zero(const uint64_t *gpas, uint64_t offset, uint64_t n)
{
    return frames_access(gpas, offset, NULL, n, ZERO_FRAMES);
}

/* ---- between frames and user memory: read and write of files in RAM ---------------------------- */

/* Bytes of frames into user memory; a zero is a page of zeros. */
int64_t user_from_frames(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t offset,
                         uint64_t n, struct fault *fault)
{
    uint64_t done = 0, some;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 1, &some, fault);
        uint64_t gpa = gpas[(offset + done) >> PAGE_SHIFT];
        uint64_t inside = (offset + done) & (PAGE_SIZE - 1);
        if (!at)
            break;
        if (some > PAGE_SIZE - inside)
            some = PAGE_SIZE - inside;
        uint64_t left = gpa >= ram.span ? some
                        : gpa           ? guarded_copy(at, ram.base + gpa + inside, some)
                                        : guarded_zero(at, some);
        done += some - left;
        if (left) {
            set_fault(fault, va + done, 1, 1);
            break;
        }
    }
    return (int64_t)done;
}

/* New frames for the holes at gpas[0..want), in a row and as their last users left them: all from
 * byte `head` of the first on is to be stored to. How many; 0: no memory. */
static size_t fill_holes(uint64_t *gpas, size_t want, size_t head)
{
    size_t holes = 1, got = 0;
    while (holes < want && !gpas[holes])
        holes++;
    uint64_t gpa = hidden_take_raw(holes, &got);
    if (gpa && guarded_zero(ram.base + gpa, head)) {
        run_release(gpa, got);
        return 0;
    }
    for (size_t k = 0; gpa && k < got; k++)
        gpas[k] = gpa + k * PAGE_SIZE;
    return gpa ? got : 0;
}

/* Of new frames, bytes up to `end` are stored: zero the rest of that frame, and give back those
 * after it. How many. */
static size_t trim_new(uint64_t *gpas, uint64_t end, const uint64_t *stop)
{
    uint64_t inside = end & (PAGE_SIZE - 1), *at = gpas + (end >> PAGE_SHIFT);
    size_t given = 0;
    if (inside && at < stop)
        guarded_zero(ram.base + *at++ + inside, PAGE_SIZE - inside);
    for (; at < stop; at++, given++) {
        run_release(*at, 1);
        *at = 0;
    }
    return given;
}

/* User memory into frames; zeros become frames, *filled says how many. fault.addr is 0 if there
 * was none left. */
int64_t user_to_frames(struct aspace *as, uint64_t va, uint64_t *gpas, uint64_t offset, uint64_t n,
                       uint64_t *filled, struct fault *fault)
{
    uint64_t done = 0, some, *stop = gpas + ((offset + n + PAGE_SIZE - 1) >> PAGE_SHIFT);
    uint64_t *new_stop = NULL;
    *filled = 0;
    while (done < n) {
        uint8_t *at = piece(as, va + done, n - done, 0, &some, fault);
        uint64_t *gpa = gpas + ((offset + done) >> PAGE_SHIFT);
        uint64_t inside = (offset + done) & (PAGE_SIZE - 1);
        if (!at)
            break;
        if (!*gpa) {
            size_t got = fill_holes(gpa, (size_t)(stop - gpa), inside);
            if (!got) {
                set_fault(fault, 0, 0, 1);
                break;
            }
            *filled += got;
            new_stop = gpa + got;
        }
        if (some > PAGE_SIZE - inside)
            some = PAGE_SIZE - inside;
        if (*gpa < ram.span && references[frame_index(*gpa)] > 1)
            ram_counters.code_changes++; /* somebody has it mapped */
        uint64_t left =
            *gpa >= ram.span ? some : guarded_copy(ram.base + *gpa + inside, at, some);
        done += some - left;
        if (left) { /* of the user's page, or of the frame, which then cannot be had */
            uint8_t probe;
            set_fault(fault, guarded_copy(&probe, at + some - left, 1) ? va + done : 0, 0, 1);
            break;
        }
    }
    if (new_stop)
        *filled -= trim_new(gpas, offset + done, new_stop);
    return (int64_t)done;
}
