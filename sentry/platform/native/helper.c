/* Memory slots, on a thread of their own: a change waits for every vCPU that is in a host page
 * fault, and the kernel thread must not. */
#define _GNU_SOURCE
#include "vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define DUMMY_SLOT 4000
#define DUMMY_GPA (DOORBELL_GPA + (1ull << 30))

struct job {
    struct kvm_userspace_memory_region region;
    uint64_t ticket; /* of a flush */
    int flush;
    struct job *next;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *head, **tail;
    pthread_t thread;
    int running, closing, busy;
    void *dummy;
} helper = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static int set_region(struct kvm_userspace_memory_region *region)
{
    return ioctl(pool.vm_fd, KVM_SET_USER_MEMORY_REGION, region) < 0 ? -errno : 0;
}

static void work(struct job *job)
{
    if (job->flush) {
        /* Deleting any slot makes KVM drop every translation of every vCPU. */
        struct kvm_userspace_memory_region dummy = {
            .slot = DUMMY_SLOT,
            .guest_phys_addr = DUMMY_GPA,
            .memory_size = PAGE_SIZE,
            .userspace_addr = (uintptr_t)helper.dummy,
        };
        if (set_region(&dummy))
            abort(); /* without a flush, memory would be reused with stale translations */
        dummy.memory_size = 0;
        if (set_region(&dummy))
            abort();
        ram_flushed_all(job->ticket);
    } else {
        ram_slot_ready(job->region.slot, set_region(&job->region));
    }
    pool_wake();
}

static void *helper_main(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&helper.lock);
    while (!helper.closing) {
        struct job *job = helper.head;
        if (!job) {
            pthread_cond_wait(&helper.more, &helper.lock);
            continue;
        }
        helper.head = job->next;
        if (!helper.head)
            helper.tail = &helper.head;
        helper.busy = 1;
        pthread_mutex_unlock(&helper.lock);
        work(job);
        free(job);
        pthread_mutex_lock(&helper.lock);
        helper.busy = 0;
    }
    pthread_mutex_unlock(&helper.lock);
    return NULL;
}

static void submit(struct job request)
{
    struct job *job;
    if (!helper.running) {
        work(&request);
        return;
    }
    job = malloc(sizeof *job);
    if (!job)
        abort();
    *job = request;
    job->next = NULL;
    pthread_mutex_lock(&helper.lock);
    *helper.tail = job;
    helper.tail = &job->next;
    pthread_cond_signal(&helper.more);
    pthread_mutex_unlock(&helper.lock);
}

static void add_slot(unsigned slot, uint64_t gpa, uint64_t size, void *host, int readonly)
{
    submit((struct job){.region = {
                            .slot = slot,
                            .flags = readonly ? KVM_MEM_READONLY : 0,
                            .guest_phys_addr = gpa,
                            .memory_size = size,
                            .userspace_addr = (uintptr_t)host,
                        }});
}

static void flush_all(uint64_t ticket)
{
    submit((struct job){.flush = 1, .ticket = ticket});
}

/* Set the memory half's hooks; until helper_start the work is done at once. */
int helper_open(void)
{
    helper.dummy = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (helper.dummy == MAP_FAILED)
        return -errno;
    helper.head = NULL;
    helper.tail = &helper.head;
    helper.closing = helper.running = 0;
    platform_add_slot = add_slot;
    platform_flush_all = flush_all;
    platform_release_when_out = space_release_when_out;
    return 0;
}

int helper_start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&helper.thread, NULL, helper_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    helper.running = !error;
    return -error;
}

int helper_is_busy(void)
{
    pthread_mutex_lock(&helper.lock);
    int busy = helper.busy || helper.head;
    pthread_mutex_unlock(&helper.lock);
    return busy;
}

/* In a forked process, where its thread is not: work is done at once again. */
void helper_forget(void)
{
    pthread_mutex_init(&helper.lock, NULL);
    pthread_cond_init(&helper.more, NULL);
    helper.running = 0;
}

void helper_close(void)
{
    if (helper.running) {
        pthread_mutex_lock(&helper.lock);
        helper.closing = 1;
        pthread_cond_signal(&helper.more);
        pthread_mutex_unlock(&helper.lock);
        pthread_join(helper.thread, NULL);
        helper.running = 0;
    }
    while (helper.head) { /* what was still asked for is done, so that nothing waits for it */
        struct job *job = helper.head;
        helper.head = job->next;
        work(job);
        free(job);
    }
    munmap(helper.dummy, PAGE_SIZE);
}
