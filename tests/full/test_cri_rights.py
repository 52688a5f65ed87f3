"""What a container of a pod may do: users, capabilities, paths, seccomp, ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.full import cri
from tests.full.pods import HANDLER, NEEDS, Pods, secured
from tests.full.runtimes import RUNTIME

pytestmark = NEEDS


@pytest.mark.row("runAsUser, runAsGroup, supplementalGroups")
def test_run_as_user_group_and_supplemental_groups(pods: Pods) -> None:
    pod = pods.run(security=secured(groups=[3333]))
    security = cri.Security(user=cri.Number(1234), group=cri.Number(2345), groups=[4444, 5555])

    container = pods.start(pod, security=security)

    assert pods.shell(container, "id -u; id -g; id -G").splitlines() == [
        "1234", "2345", "2345 4444 5555",
    ]  # fmt: skip


@pytest.mark.row("runAsUser, runAsGroup, supplementalGroups")
def test_run_as_username_is_found_in_the_image(pods: Pods) -> None:
    pod = pods.run()

    assert pods.output(pod, "id -u", security=cri.Security(username="root")) == "0\n"


@pytest.mark.row("capabilities, privileged, allowPrivilegeEscalation")
def test_capabilities_are_added_and_dropped(pods: Pods) -> None:
    pod = pods.run()
    some = cri.Capabilities(["NET_ADMIN"], ["CHOWN"])
    shown = "grep CapEff /proc/self/status | cut -f2"

    plain = int(pods.output(pod, shown), 16)
    changed = int(pods.output(pod, shown, security=cri.Security(capabilities=some)), 16)

    assert (changed ^ plain) == 1 << 12 | 1 << 0
    assert changed & 1 << 12


@pytest.mark.row("capabilities, privileged, allowPrivilegeEscalation")
def test_privileged_has_all_capabilities(pods: Pods) -> None:
    pod = pods.run(security=secured(privileged=True))
    security = cri.Security(privileged=True)

    text = pods.output(
        pod, "grep CapEff /proc/self/status; mount -t tmpfs x /mnt && echo ok", security=security
    )

    assert int(text.split()[1], 16) & 1 << 21
    assert text.endswith("ok\n")


@pytest.mark.row("capabilities, privileged, allowPrivilegeEscalation")
def test_no_new_privs_is_set(pods: Pods) -> None:
    pod = pods.run()
    shown = "grep NoNewPrivs /proc/self/status | cut -f2"

    assert pods.output(pod, shown, security=cri.Security(no_new_privs=True)) == "1\n"
    assert pods.output(pod, shown) == "0\n"


@pytest.mark.row("readOnlyRootFilesystem, procMount")
def test_readonly_rootfs_cannot_be_written(pods: Pods) -> None:
    pod = pods.run()
    script = "touch /file || echo refused; touch /dev/shm/file && echo made"

    text = pods.output(pod, script, security=cri.Security(read_only_root=True))

    assert text == "refused\nmade\n"


@pytest.mark.row("readOnlyRootFilesystem, procMount")
def test_masked_and_readonly_paths(pods: Pods) -> None:
    pod = pods.run()
    security = cri.Security(masked_paths=["/proc/meminfo", "/etc"], readonly_paths=["/home"])

    text = pods.output(
        pod,
        "wc -c </proc/meminfo; ls /etc | wc -l; touch /home/x || echo refused",
        security=security,
    )

    assert text.split() == ["0", "0", "refused"]


@pytest.mark.row("seccompProfile")
@pytest.mark.parametrize("kind", [cri.UNCONFINED, cri.RUNTIME_DEFAULT])
def test_seccomp_profile(pods: Pods, kind: int) -> None:
    pod = pods.run(security=secured(seccomp=cri.Profile(kind)))
    shown = "grep '^Seccomp:' /proc/self/status | cut -f2"

    text = pods.output(pod, shown, security=cri.Security(seccomp=cri.Profile(kind)))

    assert text == {cri.UNCONFINED: "0\n", cri.RUNTIME_DEFAULT: "2\n"}[kind]


@pytest.mark.row("seccompProfile")
def test_seccomp_profile_of_localhost_refuses_a_call(pods: Pods, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    pod = pods.run()
    seccomp = cri.Profile(cri.LOCALHOST, str(path))

    text = pods.output(pod, "mkdir /new 2>&1 || true", security=cri.Security(seccomp=seccomp))

    assert "Operation not supported" in text or "Not supported" in text


@pytest.mark.row("hostUsers: false")
def test_user_namespace_maps_ids(pods: Pods) -> None:
    users = cri.Users(cri.POD, [cri.Mapping(100000, 0, 65536)], [cri.Mapping(100000, 0, 65536)])
    namespaces = cri.Namespaces(users=users)
    # containerd 2.1 takes the options of any runtime for runc's, where there is a user namespace
    handler = "runsc-plain" if RUNTIME.is_ours else HANDLER
    pod = pods.run(security=cri.PodSecurity(namespaces), handler=handler)

    text = pods.output(
        pod,
        "cat /proc/self/uid_map; id -u; touch /made; stat -c %u /made /bin/sh",
        security=cri.Security(namespaces=namespaces),
    )

    assert text.split() == ["0", "100000", "65536", "0", "0", "0"]
