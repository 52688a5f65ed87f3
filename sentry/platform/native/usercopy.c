/* The Sentry's own accesses to user memory.
 *
 * Every access walks the program's page tables (present, user, writable) and then touches the
 * frame through a guarded access (guard.c). A function returns how far it came; `fault` says
 * which address stopped it and why. Repairing is sentry.mm's business.
 */
#define _GNU_SOURCE
#include "reach.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>

#define MAX_IOV 256
#define TASK_END (TASK_SIZE - PAGE_SIZE) /* sentry.mm.layout */

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

/* The ranges that an array of `count` struct iovec at va stands for, `room` bytes at most: pairs of
 * an address and a length, without those that are empty. How many; -1: the array cannot be read as
 * it is; -2: one of them cannot be accessed, or is none that may be, and they are as they were
 * read. */
int ranges_read(struct aspace *as, uint64_t va, int count, uint64_t room, int write,
                uint64_t *ranges, struct fault *fault)
{
    int some = 0;
    int64_t size = count * 16;
    if (user_read(as, va, ranges, (uint64_t)size, fault) != size)
        return -1;
    uint64_t left = room;
    for (int i = 0; i < count; i++) {
        uint64_t at = ranges[2 * i], wanted = ranges[2 * i + 1];
        if (wanted > TASK_END || at > TASK_END - wanted)
            return -2;
        uint64_t length = wanted < left ? wanted : left;
        if (user_check(as, at, length, write, fault) != (int64_t)length)
            return -2;
        left -= length;
    }
    for (int i = 0; i < count; i++) {
        uint64_t wanted = ranges[2 * i + 1], length = wanted < room ? wanted : room;
        room -= length;
        if (length) {
            ranges[2 * some] = ranges[2 * i];
            ranges[2 * some++ + 1] = length;
        }
    }
    return some;
}

/* ---- host descriptors ------------------------------------------------------------------------ */

/* Where a walk over ranges is: pairs of an address and a length. */
struct cursor {
    const uint64_t *range;
    int left;
    uint64_t inside; /* the first one */
};

static uint64_t cursor_address(struct cursor *at)
{
    while (at->left && at->inside == at->range[1]) {
        at->range += 2;
        at->left--;
        at->inside = 0;
    }
    return at->left ? at->range[0] + at->inside : 0;
}

static int gather(struct aspace *as, struct cursor *from, int write, struct iovec *iov, int max,
                  uint64_t *covered, struct fault *fault)
{
    int count = 0;
    uint64_t some, va;
    *covered = 0;
    while ((va = cursor_address(from)), from->left) {
        uint8_t *at = piece(as, va, from->range[1] - from->inside, write, &some, fault);
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
        from->inside += some;
        *covered += some;
    }
    return count;
}

/* Whether a file ends before this offset: then a read gives 0, wherever it was to go. */
static int at_end(int fd, off_t at, int flags)
{
    struct iovec nowhere = {NULL, 1};
    return at >= 0 && preadv2(fd, &nowhere, 1, at, flags) == 0;
}

static int64_t transfer(struct aspace *as, int fd, int64_t offset, struct cursor from, int flags,
                        int to_user, struct fault *fault)
{
    struct iovec iov[MAX_IOV];
    uint64_t done = 0, covered, va;
    set_fault(fault, 0, to_user, 0);
    while ((va = cursor_address(&from)), from.left) {
        int count = gather(as, &from, to_user, iov, MAX_IOV, &covered, fault);
        off_t at = offset < 0 ? -1 : offset + (off_t)done;
        if (!count)
            return done || (to_user && at_end(fd, at, flags)) ? (int64_t)done : -EFAULT;
        ssize_t got = to_user ? preadv2(fd, iov, count, at, flags)
                              : pwritev2(fd, iov, count, at, flags);
        if (got < 0) {
            if (errno == EFAULT)
                set_fault(fault, va, to_user, 1);
            return done ? (int64_t)done : -errno;
        }
        done += (uint64_t)got;
        /* A stream answers once: asking again could wait for more. */
        if ((uint64_t)got < covered || offset < 0)
            break;
    }
    return (int64_t)done;
}

int64_t user_preadv(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n, int flags,
                    struct fault *fault)
{
    uint64_t range[2] = {va, n};
    return transfer(as, fd, offset, (struct cursor){range, 1, 0}, flags, 1, fault);
}

int64_t user_pwritev(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n,
                     int flags, struct fault *fault)
{
    uint64_t range[2] = {va, n};
    return transfer(as, fd, offset, (struct cursor){range, 1, 0}, flags, 0, fault);
}

/* The same for many ranges. */
int64_t ranges_preadv(struct aspace *as, int fd, int64_t offset, const uint64_t *ranges, int count,
                      int flags, struct fault *fault)
{
    return transfer(as, fd, offset, (struct cursor){ranges, count, 0}, flags, 1, fault);
}

int64_t ranges_pwritev(struct aspace *as, int fd, int64_t offset, const uint64_t *ranges,
                       int count, int flags, struct fault *fault)
{
    return transfer(as, fd, offset, (struct cursor){ranges, count, 0}, flags, 0, fault);
}

/* Host memory of a user range for I/O on another thread, a pin on every frame. Windows are left
 * out: their mapping may go. Number of pieces; *covered bytes. */
int user_pin(struct aspace *as, uint64_t va, uint64_t n, int write, struct iovec *iov, int max,
             uint64_t *covered, struct fault *fault)
{
    uint64_t range[2] = {va, n};
    struct cursor from = {range, 1, 0};
    int count = gather(as, &from, write, iov, max, covered, fault);
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
