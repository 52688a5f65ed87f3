/* Contexts, the queue of those that want to run, and the wait of the kernel thread.
 *
 * One context is emulated at a time, in the order of the queue, each until it exits or its slice
 * is over; that makes the `lock` prefix atomic. Emulation happens within machine_wait only, so
 * outside of it every context is stopped.
 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#define SHORT_NS 100000 /* for programs, when the kernel has work of its own to do */
#define IDLE_TURNS 4

/* ---- the queue ------------------------------------------------------------------------------ */

static void queue_push(struct uctx *c)
{
    c->state = S_QUEUED;
    c->next = NULL;
    if (machine.queue_tail)
        machine.queue_tail->next = c;
    else
        machine.queue_head = c;
    machine.queue_tail = c;
}

static void queue_remove(struct uctx *c)
{
    struct uctx **link = &machine.queue_head, *before = NULL;
    while (*link && *link != c) {
        before = *link;
        link = &(*link)->next;
    }
    if (!*link)
        return;
    *link = c->next;
    if (machine.queue_tail == c)
        machine.queue_tail = before;
    c->next = NULL;
    c->state = S_KERNEL;
}

static void announce(struct uctx *c, enum exit_kind kind)
{
    c->kind = kind;
    if (!c->announced) {
        c->announced = 1;
        machine.events[machine.n_events++] = c->index;
    }
}

/* ---- contexts ------------------------------------------------------------------------------- */

static int reserve(uint32_t contexts)
{
    if (contexts <= machine.contexts_size)
        return 0;
    uint32_t size = machine.contexts_size ? machine.contexts_size * 2 : 64;
    struct uctx **all = realloc(machine.contexts, size * sizeof *all);
    if (!all)
        return -1;
    memset(all + machine.contexts_size, 0, (size - machine.contexts_size) * sizeof *all);
    machine.contexts = all;
    uint32_t *events = realloc(machine.events, size * sizeof *events);
    if (!events)
        return -1;
    machine.events = events;
    machine.contexts_size = size;
    return 0;
}

struct uctx *uctx_new(uint64_t root, uint64_t space)
{
    uint32_t index = 0;
    while (index < machine.contexts_size && machine.contexts[index])
        index++;
    struct uctx *c = reserve(index + 1) ? NULL : calloc(1, sizeof *c);
    if (!c)
        return NULL;
    fpu_init(c);
    c->index = index;
    c->regs[R_CS] = SEL_USER_CS;
    c->regs[R_SS] = SEL_USER_DS;
    c->regs[R_RFLAGS] = 0x202;
    uctx_bind(c, root, space);
    machine.contexts[index] = c;
    return c;
}

void uctx_charge(struct uctx *c, uint64_t *account_ns)
{
    c->account_ns = account_ns;
}

void uctx_bind(struct uctx *c, uint64_t root, uint64_t space)
{
    c->root = root;
    c->space = space;
}

void uctx_resume(struct uctx *c)
{
    if (c->state != S_KERNEL)
        return;
    if (c->kicked) {
        c->kicked = 0;
        announce(c, EXIT_INTERRUPTED);
    } else if (c->regs[R_RIP] >= TASK_SIZE) { /* nothing there is the program's, or canonical */
        c->fault_addr = c->regs[R_RIP];
        c->error_code = 0x14; /* user, instruction fetch */
        c->vector = 14;
        announce(c, EXIT_FAULT);
    } else {
        queue_push(c);
    }
}

void uctx_answer(struct uctx *c, uint64_t value)
{
    c->regs[R_RAX] = value;
    uctx_resume(c);
}

void uctx_kick(struct uctx *c)
{
    if (c->state == S_QUEUED) {
        queue_remove(c);
        announce(c, EXIT_INTERRUPTED);
    } else {
        c->kicked = 1;
    }
}

/* It is outside of the emulation already; what it was about to do it does not any more. */
void uctx_stop(struct uctx *c)
{
    if (c->state == S_QUEUED)
        uctx_kick(c);
}

void uctx_set_fast(struct uctx *c, const struct fast_answers *answers)
{
    c->fast = *answers;
}

static void fetch_fpu(struct uctx *c)
{
    if (machine.loaded == c && c->live)
        fpu_store(c); /* and stays in the CPU */
}

void uctx_get_fpu(struct uctx *c, uint8_t *image)
{
    fetch_fpu(c);
    memcpy(image, c->fpu, sizeof c->fpu);
}

void uctx_copy(struct uctx *to, struct uctx *from)
{
    fetch_fpu(from);
    memcpy(to->fpu, from->fpu, sizeof to->fpu);
    to->live = 0;
    memcpy(to->regs, from->regs, sizeof to->regs);
}

void uctx_destroy(struct uctx *c)
{
    uint32_t kept = 0;
    if (c->state == S_QUEUED)
        queue_remove(c);
    for (uint32_t i = 0; i < machine.n_events; i++)
        if (machine.events[i] != c->index)
            machine.events[kept++] = machine.events[i];
    machine.n_events = kept;
    if (machine.loaded == c)
        machine.loaded = NULL;
    machine.contexts[c->index] = NULL;
    free(c);
}

/* ---- the wait ------------------------------------------------------------------------------- */

/* Report `events` of fd, level-triggered, until called again with 0. 0 or -errno. */
int machine_watch(int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (!events)
        return epoll_ctl(machine.epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 ? -errno : 0;
    if (epoll_ctl(machine.epoll_fd, EPOLL_CTL_MOD, fd, &e) == 0)
        return 0;
    if (errno == ENOENT && epoll_ctl(machine.epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0)
        return 0;
    return -errno;
}

/* Host descriptors, for at most `wait_ns` (negative: for ever). */
static void poll_host(int64_t wait_ns)
{
    enum { MOST = sizeof machine.ready / sizeof *machine.ready };
    struct epoll_event e[MOST];
    struct timespec t = {wait_ns / 1000000000, wait_ns % 1000000000};
    int n = epoll_pwait2(machine.epoll_fd, e, MOST, wait_ns < 0 ? NULL : &t, NULL);
    watcher_ready_taken();
    machine.n_ready = 0;
    for (int i = 0; i < n; i++)
        machine.ready[machine.n_ready++] = (struct uready){e[i].data.fd, e[i].events};
}

static void run_next(int64_t deadline_ns)
{
    struct uctx *c = machine.queue_head;
    queue_remove(c);
    int64_t start = monotonic_ns();
    watcher_run_begins(deadline_ns);
    enum exit_kind kind = run(c);
    watcher_run_ends();
    uint64_t ran = (uint64_t)(monotonic_ns() - start);
    c->cpu_ns += ran;
    if (c->account_ns)
        *c->account_ns += ran;
    if (kind == EXIT_INTERRUPTED)
        queue_push(c); /* the slice is over */
    else
        announce(c, kind);
}

/* Emulate until a context has an exit, a descriptor is ready or the deadline has come. The
 * indexes of contexts with an exit are in machine.events; how many is the result. */
int machine_wait(int64_t deadline_ns)
{
    machine.n_ready = 0;
    while (!machine.n_events && !machine.n_ready) {
        if (watcher_saw_ready()) {
            poll_host(0);
            continue;
        }
        int64_t now = monotonic_ns(), left = deadline_ns < 0 ? -1 : deadline_ns - now;
        int due = deadline_ns >= 0 && left <= 0;
        if (!machine.queue_head) {
            poll_host(due ? 0 : left);
            if (due)
                break;
        } else if (due) {
            /* The kernel has work to do. Programs get a little time nevertheless, or work that
             * goes on until a program has done something would go on for ever. */
            poll_host(0);
            if (machine.n_ready || ++machine.idle_turns % IDLE_TURNS)
                break;
            run_next(now + SHORT_NS);
            break;
        } else {
            run_next(deadline_ns);
        }
    }
    if (machine.n_events && watcher_saw_ready())
        poll_host(0);
    for (uint32_t i = 0; i < machine.n_events; i++)
        machine.contexts[machine.events[i]]->announced = 0;
    int n = (int)machine.n_events;
    machine.n_events = 0;
    return n;
}
