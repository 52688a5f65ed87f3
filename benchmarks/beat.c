/* Writes a byte to /dev/null every half a millisecond, for as many seconds as it is told, and says
 * how long that took: median, 99th and 99.9th percentile, longest (ns), and how many there were. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PER_SECOND 2000

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    size_t most = atoi(argv[1]) * PER_SECOND, n = 0;
    uint64_t *took = calloc(most + 1, sizeof *took), end = now() + atoi(argv[1]) * 1000000000ull;
    struct timespec pause = {0, 1000000000 / PER_SECOND};
    int null = open("/dev/null", O_WRONLY);
    puts("ready");
    fflush(stdout);
    while (n < most && now() < end) {
        uint64_t before = now();
        if (write(null, "x", 1) != 1)
            return 3;
        took[n++] = now() - before;
        nanosleep(&pause, NULL);
    }
    qsort(took, n, sizeof *took, ascending);
    printf("%llu %llu %llu %llu %zu\n", (unsigned long long)took[n / 2],
           (unsigned long long)took[n * 99 / 100], (unsigned long long)took[n * 999 / 1000],
           (unsigned long long)took[n - 1], n);
    return 0;
}
