#ifndef SENTRY_SIGFRAME_H
#define SENTRY_SIGFRAME_H

#include "memory_api.h"

void sigframe_make(uint8_t *frame, uint64_t at, uint64_t fp_at, const uint64_t *regs,
                   const uint8_t *image, uint64_t size, uint64_t features, uint64_t restorer,
                   uint64_t uc_flags, uint64_t alt_sp, uint64_t alt_flags, uint64_t alt_size,
                   uint64_t trapno, uint64_t error, uint64_t cr2, uint64_t mask,
                   const uint8_t *info);
void sigframe_enter(uint64_t *regs, uint64_t at, uint64_t signo, uint64_t handler,
                    uint64_t cleared_flags);
int sigframe_read(struct aspace *as, uint64_t at, uint64_t *regs, uint64_t taken_flags,
                  uint8_t *image, uint64_t size, uint64_t features, uint64_t *found,
                  struct fault *fault);

#endif
