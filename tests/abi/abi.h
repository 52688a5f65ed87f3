/* Assertions of the ABI programs: each passes natively on Linux, then inside the Sentry. */
#ifndef ABI_H
#define ABI_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a handler stored is looked at anew: libc declares its calls as leaf functions. */
#define ABI_FENCE __asm__ volatile("" ::: "memory")

#define CHECK(cond)                                                                             \
    do {                                                                                        \
        errno = 0;                                                                              \
        ABI_FENCE;                                                                              \
        if (!(cond)) {                                                                          \
            fprintf(stderr, "%s:%d: not true: %s (errno %d)\n", __FILE__, __LINE__, #cond,      \
                    errno);                                                                     \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

/* The call fails (-1) with this errno. */
#define CHECK_ERR(expr, expected)                                                               \
    do {                                                                                        \
        errno = 0;                                                                              \
        long result_ = (long)(expr);                                                            \
        if (result_ != -1 || errno != (expected)) {                                             \
            fprintf(stderr, "%s:%d: %s gave %ld, errno %d instead of %d\n", __FILE__, __LINE__, \
                    #expr, result_, errno, (expected));                                         \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

#endif
