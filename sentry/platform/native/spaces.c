/* When an address space may be given back: no vCPU may be inside, or come back to its root. That is
 * looked at when it dies, whenever a context has left one, and when a vCPU has come out that nobody
 * has any more. */
#include "vcpu.h"

#include <stdlib.h>

/* Let go of everything that a vCPU which is out keeps of this address space. 1: all are out. */
static int forget(struct aspace *as)
{
    int all_out = 1;
    for (uint32_t i = 0; i < pool.vcpus; i++) {
        struct vcpu *v = &pool.vcpu[i];
        if (v->fpu_space == as)
            v->fpu_space = NULL; /* the address may come again for another one */
        if (v->leaving == as && !has_arrived(v))
            all_out = 0; /* any moment, see vacant_due */
        if (v->loaded != as)
            continue;
        uint32_t phase = atomic_load(&v->phase);
        if (phase == P_OUT)
            came_out(v);
        if (phase == P_OUT || (phase == P_FREE && !v->draining)) {
            if (v->ctx)
                vcpu_evict(v);
            v->loaded = NULL; /* the next launch loads another CR3 before it enters the guest */
            v->s = NULL;
            v->at_tail = 0;
        } else {
            all_out = 0;
            atomic_store(&v->tell_out, 1);
            if (phase != P_TAKEN) /* it will ring, see vacant_due */
                vcpu_kick(v);
        }
    }
    return all_out;
}

static int try_release(struct aspace *as)
{
    if (!forget(as))
        return 0;
    struct space_exec *x = as->execution;
    as->execution = NULL;
    for (int i = 0; x && i < MAX_VCPUS; i++)
        if (x->s_gpa[i])
            frame_put(x->s_gpa[i]);
    free(x);
    aspace_released(as);
    return 1;
}

/* Called by the memory half when an address space dies. */
void space_release_when_out(struct aspace *as)
{
    if (!try_release(as)) {
        as->next = pool.dying;
        pool.dying = as;
    }
}

void spaces_release(void)
{
    static int entered; /* by way of came_out in forget, which goes on by itself */
    if (entered)
        return;
    entered = 1;
    for (struct aspace **link = &pool.dying; *link;) {
        struct aspace *as = *link, *next = as->next;
        if (try_release(as))
            *link = next;
        else
            link = &as->next;
    }
    entered = 0;
}

/* The memory goes as a whole. */
void spaces_close(void)
{
    for (struct aspace *as = pool.dying, *next; as; as = next) {
        next = as->next;
        free(as->execution);
        free(as);
    }
}
