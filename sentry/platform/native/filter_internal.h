/* What a program is, for who checks it and who runs it. */
#ifndef SENTRY_FILTER_INTERNAL_H
#define SENTRY_FILTER_INTERNAL_H

#include <linux/filter.h>

#include "filter.h"

struct filter {
    const struct filter *older;
    uint32_t count, converted;
    struct sock_filter code[];
};

/* Whether Linux takes a program. */
int filter_accepts(const uint8_t *code, uint32_t count, int for_calls);
uint32_t filter_conversion(const struct sock_filter *code, uint32_t count, int for_calls);

#endif
