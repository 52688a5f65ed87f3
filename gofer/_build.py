"""The cffi module `gofer._native`: the file calls that Python's os module lacks.

openat2 with RESOLVE_BENEATH, statx packed straight into a wire block, directory listings packed
straight into 9P entries. Every function gives -errno instead of setting errno, so that a missing
file costs no exception.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

ffibuilder = FFI()
ffibuilder.cdef(
    """
    int gofer_open(int dirfd, const char *name, uint64_t flags, uint32_t mode);
    int gofer_stat(int dirfd, const char *name, uint8_t *block);
    int gofer_open_stat(int dirfd, const char *name, uint64_t flags, uint8_t *block);
    int gofer_chown(int fd, uint32_t uid, uint32_t gid);
    int gofer_chmod(int fd, uint32_t mode);
    int gofer_utimens(int fd, int64_t atime_ns, int64_t mtime_ns, int which);
    int gofer_renameat2(int olddir, const char *old, int newdir, const char *name, uint32_t flags);
    int gofer_link(int fd, int newdir, const char *newname);
    int gofer_notify(void);
    int gofer_watch(int notify, int dirfd, int home);
    int gofer_unwatch(int notify, int number);
    struct gofer_statfs {
        uint32_t fs_type, bsize;
        uint64_t blocks, bfree, bavail, files, ffree, fsid;
        uint32_t namelen;
    };
    int gofer_statfs(int fd, struct gofer_statfs *out);
    int64_t gofer_readdir(int fd, uint64_t offset, uint8_t *out, size_t room, uint64_t dotdot);
    int64_t gofer_readdir_attr(int fd, uint64_t offset, uint8_t *out, size_t room);
    """
)
ffibuilder.set_source(
    "gofer._native",
    (Path(__file__).parent / "native.c").read_text() + '#include "generated_below.h"\n',
    extra_compile_args=["-O2"],
    py_limited_api=True,
)
