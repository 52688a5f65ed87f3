struct hostio {
    int op, fd;
    int64_t offset;
    uint64_t size;
    uint64_t token;
    int64_t result;
    ...;
};
int hostio_pending(int fd);
int hostio_stat(int fd, uint8_t *known);
int64_t hostio_receive(int fd, int patience_ms, uint8_t *data, size_t size, int *fds);
struct hostio_pool;
struct hostio_pool *hostio_open(int threads);
int hostio_fd(struct hostio_pool *pool);
int hostio_submit(struct hostio_pool *pool, int op, int fd, int64_t offset, uint64_t size,
                  const void *data, uint64_t token);
void hostio_linger(struct hostio_pool *pool, uint64_t ns);
struct hostio *hostio_take(struct hostio_pool *pool);
uint8_t *hostio_buffer(struct hostio *request);
void hostio_free(struct hostio *request);
void hostio_close(struct hostio_pool *pool);
