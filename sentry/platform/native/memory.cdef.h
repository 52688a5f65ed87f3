/* For cffi: what Python sees of memory.h and memory_api.h. */
struct ram {
    uint8_t *base;
    int fd;
    int vm_fd;
    uint64_t span;
    uint64_t kernel_pdpt;
    uint64_t frozen;
    int large_entries;
    ...;
};
extern struct ram ram;
int ram_open(int fd, int vm_fd, uint64_t span);
void ram_close(void);
uint64_t ram_trim(uint64_t keep_bytes, unsigned max_blocks);
int ram_freeze(void);
int ram_thaw(int fd, int vm_fd);

uint64_t frame_alloc(void);
uint64_t frames_alloc_contiguous(size_t n);
uint64_t data_alloc(void);
int64_t data_fill(uint64_t *gpas, uint64_t n);
int64_t data_put_list(uint64_t *gpas, uint64_t n);
void frame_get(uint64_t gpa);
void frame_put(uint64_t gpa);
uint32_t frame_references(uint64_t gpa);
void frame_pin(uint64_t gpa);
void frame_unpin(uint64_t gpa);
uint8_t *frame_host(uint64_t gpa);

struct ram_counters {
    uint64_t frames, kernel_frames, tables, quarantined, pooled, dirty, pins;
    uint64_t flush_calls, flushed_frames, flush_alls, spaces, code_changes;
};
extern struct ram_counters ram_counters;
extern void (*flush_observer)(uint64_t gpa, uint64_t frames);

struct aspace {
    uint64_t root, tables, empty_tables, anonymous, windows;
    int inside, dying;
    ...;
};
struct aspace *aspace_new(void);
void aspace_destroy(struct aspace *as);
void aspace_reap(void);
int aspace_map_special(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pte_flags);
void aspace_unmap_special(struct aspace *as, uint64_t va);
uint64_t aspace_entry(struct aspace *as, uint64_t va);

extern void (*platform_add_slot)(unsigned slot, uint64_t gpa, uint64_t size, void *host,
                                 int readonly);
extern void (*platform_flush_all)(uint64_t ticket);
extern void (*platform_release_when_out)(struct aspace *as);
void ram_slot_ready(unsigned slot, int error);
void ram_flushed_all(uint64_t ticket);
void aspace_released(struct aspace *as);

int window_map(uint64_t gpa, uint64_t size, int fd, uint64_t offset);
int window_unmap(uint64_t gpa, uint64_t size);

int aspace_map_anonymous(struct aspace *as, uint64_t va, uint64_t pages, int prot);
int aspace_map_frames(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot,
                      int cow);
int aspace_map_over(struct aspace *as, uint64_t va, uint64_t gpa, uint64_t pages, int prot);
int aspace_map_list(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t pages,
                    int prot, int cow);
int aspace_protect(struct aspace *as, uint64_t va, uint64_t pages, int prot);
int aspace_unmap(struct aspace *as, uint64_t va, uint64_t pages);
int aspace_move(struct aspace *as, uint64_t from, uint64_t to, uint64_t pages);
int64_t aspace_fork(struct aspace *parent, struct aspace *child, uint64_t va, uint64_t pages,
                    int shared, int prot, uint64_t copy_max);
int aspace_break_cow(struct aspace *as, uint64_t va, uint64_t low, uint64_t high, int prot);
int aspace_discard(struct aspace *as, uint64_t va, uint64_t pages);
int aspace_populate(struct aspace *as, uint64_t va, uint64_t pages);
uint64_t aspace_translate(struct aspace *as, uint64_t va);
int aspace_resident(struct aspace *as, uint64_t va, uint64_t pages, uint8_t *vector);
struct resident {
    uint64_t ram, windows, alone, several;
};
void aspace_count(struct aspace *as, uint64_t va, uint64_t pages, struct resident *counts);
uint64_t aspace_resident_ram(struct aspace *as);

struct iovec {
    void *iov_base;
    size_t iov_len;
};
struct fault {
    uint64_t addr;
    int write;
    int gone;
};
int64_t user_read(struct aspace *as, uint64_t va, void *to, uint64_t n, struct fault *fault);
int64_t user_write(struct aspace *as, uint64_t va, const void *from, uint64_t n,
                   struct fault *fault);
int64_t user_zero(struct aspace *as, uint64_t va, uint64_t n, struct fault *fault);
int64_t user_string(struct aspace *as, uint64_t va, void *to, uint64_t limit,
                    struct fault *fault);
int64_t user_check(struct aspace *as, uint64_t va, uint64_t n, int write, struct fault *fault);
int64_t user_preadv(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n, int flags,
                    struct fault *fault);
int64_t user_pwritev(struct aspace *as, int fd, int64_t offset, uint64_t va, uint64_t n,
                     int flags, struct fault *fault);
int user_pin(struct aspace *as, uint64_t va, uint64_t n, int write, struct iovec *iov, int max,
             uint64_t *covered, struct fault *fault);
void user_unpin(const struct iovec *iov, int count);
int user_load32(struct aspace *as, uint64_t va, uint32_t *value, struct fault *fault);
int user_cmpxchg32(struct aspace *as, uint64_t va, uint32_t *expected, uint32_t desired,
                   struct fault *fault);
int user_futex_op(struct aspace *as, uint64_t va, int op, uint32_t operand, uint32_t *old,
                  struct fault *fault);

int64_t user_from_frames(struct aspace *as, uint64_t va, const uint64_t *gpas, uint64_t offset,
                         uint64_t n, struct fault *fault);
int64_t user_to_frames(struct aspace *as, uint64_t va, uint64_t *gpas, uint64_t offset, uint64_t n,
                       uint64_t *filled, struct fault *fault);
uint64_t frames_read(const uint64_t *gpas, uint64_t offset, void *to, uint64_t n);
uint64_t frames_write(const uint64_t *gpas, uint64_t offset, const void *from, uint64_t n);
uint64_t frames_zero(const uint64_t *gpas, uint64_t offset, uint64_t n);
