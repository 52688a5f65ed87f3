/* Which frames of RAM still have the bytes that they had when this was asked last.
 *
 * The host write-protects the pages of RAM, asynchronously (userfaultfd(2), UFFD_FEATURE_WP_ASYNC):
 * whoever stores to one, a program in KVM, the kernel thread, a call of the host, takes its
 * protection off by that and goes on. A scan (PAGEMAP_SCAN, admin-guide/mm/pagemap.rst) tells which
 * pages have it still, and protects those that have not, in one step. A page that is not mapped
 * counts as changed: madvise(2) takes the protection off with the mapping. A hole that is punched
 * is no store, and is noted here.
 *
 * In a file with huge pages the host protects, and tells of, 2 MiB at a time.
 */
#define _GNU_SOURCE
#include "memory_api.h"
#include "memory_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int pagemap = -1, protector = -1;
static uint8_t *punched; /* one byte for each frame; NULL: nobody has asked yet */

#if defined(PAGEMAP_SCAN) && defined(UFFD_FEATURE_WP_ASYNC)

static struct page_region regions[CHANGES_FRAMES];

/* Have what it takes; `fd` is /proc/self/pagemap, ours from now on. 0, or -errno: the host cannot. */
int changes_open(int fd)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
                                         UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
    changes_close();
    pagemap = fd;
    protector = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (protector >= 0 && ioctl(protector, UFFDIO_API, &api) == 0)
        return 0;
    int error = -errno;
    changes_close();
    return error;
}

static int begin(void)
{
    struct uffdio_register all = {
        .range = {.start = (uintptr_t)ram.base, .len = ram.store},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(protector, UFFDIO_REGISTER, &all) < 0)
        return -errno;
    void *at = mmap(NULL, ram.span >> PAGE_SHIFT, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -errno;
    punched = at;
    return 0;
}

static int scan(uint64_t first, uint64_t n, uint8_t *same)
{
    uintptr_t start = (uintptr_t)ram.base + first * PAGE_SIZE;
    struct pm_scan_arg asked = {
        .size = sizeof asked,
        .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
        .start = start,
        .end = start + n * PAGE_SIZE,
        .vec = (uintptr_t)regions,
        .vec_len = CHANGES_FRAMES,
        .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        .return_mask = PAGE_IS_WRITTEN,
    };
    int found = ioctl(pagemap, PAGEMAP_SCAN, &asked);
    if (found < 0)
        return -errno;
    for (int i = 0; i < found; i++)
        if (!(regions[i].categories & PAGE_IS_WRITTEN))
            memset(same + (regions[i].start - start) / PAGE_SIZE, 1,
                   (regions[i].end - regions[i].start) / PAGE_SIZE);
    return 0;
}

#else

int changes_open(int fd)
{
    close(fd);
    return -ENOSYS;
}

static int begin(void) { return -ENOSYS; }
static int scan(uint64_t first, uint64_t n, uint8_t *same)
{
    (void)first, (void)n, (void)same;
    return -ENOSYS;
}

#endif

/* Clear the byte of each of these frames that may have changed since the last call for it; all of
 * them if there was none. At most CHANGES_FRAMES, whole blocks of RAM. 0, or -errno: nobody knows. */
int changes_since(uint64_t first, uint64_t n, uint8_t *same)
{
    static uint8_t now[CHANGES_FRAMES];
    uint64_t frames = ram.store >> PAGE_SHIFT;
    if (n > CHANGES_FRAMES || first > frames || n > frames - first ||
        ((first | n) & (BLOCK_FRAMES - 1)))
        return -EINVAL;
    int error = pagemap < 0 ? -ENOSYS : punched ? 0 : begin();
    memset(now, 0, n);
    if (!error)
        error = scan(first, n, now);
    if (error) {
        changes_close();
        memset(same, 0, n);
        return error;
    }
    for (uint64_t i = 0; i < n; i++)
        same[i] &= now[i] & !punched[first + i];
    memset(punched + first, 0, n);
    return 0;
}

void changes_punched(uint64_t gpa, uint64_t bytes)
{
    if (punched)
        memset(punched + frame_index(gpa), 1, bytes >> PAGE_SHIFT);
}

/* Nobody asks any more: RAM is mapped otherwise, or there is none. */
void changes_close(void)
{
    if (pagemap >= 0)
        close(pagemap);
    if (protector >= 0)
        close(protector);
    if (punched)
        munmap(punched, ram.span >> PAGE_SHIFT);
    pagemap = protector = -1;
    punched = NULL;
}
