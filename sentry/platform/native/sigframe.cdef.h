struct sigframe {
    uint64_t at, fp_at, features, restorer, uc_flags, alt_sp, alt_flags, alt_size;
    uint64_t trapno, error, cr2, mask, signo, handler, cleared_flags;
    uint8_t info[128];
};
struct sigframe_rest {
    uint64_t alt_sp, alt_flags, alt_size, mask;
};
void sigframe_make(uint8_t *bytes, const struct sigframe *frame, const uint64_t *regs,
                   const uint8_t *image, uint32_t size);
void sigframe_enter(uint64_t *regs, const struct sigframe *frame);
int sigframe_read(struct aspace *as, uint64_t at, uint64_t *regs, uint64_t taken_flags,
                  uint8_t *image, uint32_t size, uint64_t features, struct sigframe_rest *rest,
                  struct fault *fault);
