/* The C library's heap of this process. */
#ifndef SENTRY_HEAP_H
#define SENTRY_HEAP_H

void heap_keep(void); /* what is free stays for what is allocated next, up to some MiB */
void heap_trim(void); /* give the host back what is free in it, and code that has run */

#endif
