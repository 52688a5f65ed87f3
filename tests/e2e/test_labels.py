"""Labels of the host's security modules that it cannot give: refused, in runc's words.

Those that it can give are tried on a host that has AppArmor: tests/full/test_host.py.
"""

from __future__ import annotations

import os

import pytest

from tests.e2e.bundle import Bundle

INIT = "unable to start container process: error during container init: "


def test_profile_that_is_not_loaded_is_refused(bundle: Bundle, platform: str) -> None:
    document = bundle.args("true").document
    document["process"]["apparmorProfile"] = "runsc-has-no-such-profile"

    done = bundle.run(platform)

    assert done.returncode == 1
    assert f"{INIT}unable to apply apparmor profile: apparmor failed to apply" in done.stderr
    assert "no such file or directory" in done.stderr or "invalid argument" in done.stderr


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="there is SELinux here")
@pytest.mark.parametrize(("where", "name"), [("process", "selinuxLabel"), ("linux", "mountLabel")])
def test_selinux_label_is_refused_where_there_is_none(
    bundle: Bundle, platform: str, where: str, name: str
) -> None:
    bundle.args("true").document[where][name] = "system_u:system_r:container_kvm_t:s0:c1,c2"

    done = bundle.run(platform)

    assert done.returncode == 1
    assert "selinux label is specified in config, but selinux is disabled" in done.stderr


def test_no_security_module_shows_inside(bundle: Bundle, platform: str) -> None:
    done = bundle.args("cat", "/proc/self/attr/current").run(platform)

    assert done.returncode == 1
    assert "Invalid argument" in done.stderr
