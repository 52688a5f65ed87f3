/* What sentry/platform/unicorn.py calls, on the kernel thread. */
#ifndef UNICORN_MACHINE_API_H
#define UNICORN_MACHINE_API_H

#include <stdint.h>

struct fast_answers;
struct uctx;

struct cpuid {
    uint32_t function, index, indexed, value[4];
};

struct uready {
    int32_t fd;
    uint32_t events;
};

extern struct machine machine;

/* ---- library.c ---- */

/* Load the library from this path. NULL, or what is wrong (static, or from dlerror). */
const char *unicorn_load(const char *path);
int unicorn_loaded(void);

/* ---- machine.c: 0, or -errno, or a positive uc_err ---- */
int machine_open(void *ram, uint64_t span, void *ro_window, void *rw_window,
                 const void *flushes, const void *code_changes);
void machine_close(void);
int machine_read_cpuid(uint32_t function, uint32_t index, uint32_t *value);
int machine_set_cpuid(const struct cpuid *entries, uint32_t n);
const char *machine_strerror(int error);

/* ---- schedule.c ---- */
struct uctx *uctx_new(uint64_t root, uint64_t space);
void uctx_answer(struct uctx *c, uint64_t value);
void uctx_resume(struct uctx *c);
void uctx_kick(struct uctx *c);
void uctx_stop(struct uctx *c);
void uctx_charge(struct uctx *c, uint64_t *account_ns);
void uctx_bind(struct uctx *c, uint64_t root, uint64_t space);
void uctx_set_fast(struct uctx *c, const struct fast_answers *answers);
void uctx_get_fpu(struct uctx *c, uint8_t *image);
void uctx_set_fpu(struct uctx *c, const uint8_t *image);
void uctx_copy(struct uctx *to, struct uctx *from);
void uctx_destroy(struct uctx *c);
int machine_watch(int fd, uint32_t events);
int machine_wait(int64_t deadline_ns);

#endif
