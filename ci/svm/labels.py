"""Labels of SELinux for files of the machine (ci/svm/init), as an installed system has them."""

from __future__ import annotations

import os
from pathlib import Path

KINDS = {
    "/tree/runsc/launch/built": "lib_t",
    "/rootfs": "container_file_t",
    "/tmp": "tmp_t",
    "/dev/kvm": "kvm_device_t",
    "/dev/null": "null_device_t",
    "/dev/zero": "zero_device_t",
    "/dev/urandom": "urandom_device_t",
}

if __name__ == "__main__":
    for name, kind in KINDS.items():
        for path in (Path(name), *Path(name).rglob("*")):
            context = f"system_u:object_r:{kind}:s0\0".encode()
            os.setxattr(path, "security.selinux", context, follow_symlinks=False)
