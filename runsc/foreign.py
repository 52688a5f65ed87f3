"""Flags and commands of runc (1.1 to 1.3) and of gVisor's runsc that are not our own; of `do` those
of `docker run`, too.

Engines, and people, pass them. Each is taken without effect, with the reason why none is needed, or
refused with a line that says what to use instead; what has a meaning here is an option of the
command, and not in these tables. Nothing of this is imported before somebody passes one.
Sources: runc's man pages; gVisor's runsc/config/flags.go and runsc/cmd.
"""

from __future__ import annotations

from typing import Final, NamedTuple

GLOBAL: Final = ""
"""The command of what stands before any."""


class Taken(NamedTuple):
    """No effect, and why that is right."""

    why: str
    values: tuple[str, ...] = ()
    """Only with these; any others are refused."""
    switch: bool = False
    """It needs no value."""


class Refused(NamedTuple):
    """What to use instead."""

    instead: str


Verdict = Taken | Refused


def _taken(why: str, *names: str, switch: bool = False) -> dict[str, Verdict]:
    return {f"--{name}": Taken(why, switch=switch) for name in names}


def _refused(instead: str, *names: str) -> dict[str, Verdict]:
    return {f"{'-' if len(name) == 1 else '--'}{name}": Refused(instead) for name in names}


def _only(why: str, *values: str, name: str) -> dict[str, Verdict]:
    return {f"--{name}": Taken(why, values)}


_SNAPSHOT: Final = "see docs/snapshots.md: what cannot be written is said by its name"
_NO_DEVICES: Final = "no device of the host is passed on"
_LOOK: Final = "use `runsc debug --profile TIME ID` while it runs"
_NUMBERS: Final = "use `runsc events ID`"
_METRICS: Final = "use `runsc metrics ID`"
_CLI_PIDFD: Final = "use --pid-file, and pidfd_open(2) of the pid in it"

FLAGS: Final[dict[str, dict[str, Verdict]]] = {
    GLOBAL: {
        # files
        **_refused("use --overlay2=all:memory", "overlay"),
        **_taken("the Sentry opens no file, whatever is asked", "directfs", switch=True),
        **_only("devices are the Sentry's", "emulated-only", name="character-device-policy"),
        **_taken("names are kept as long as there is room", "dcache"),
        **_refused("set the limit of the caller: `ulimit -Hn N`", "fdlimit"),
        **_taken("annotations name no archive: root.path of config.json does",
                 "allow-rootfs-tar-annotation", switch=True),
        **_refused("use linux.maskedPaths of config.json", "override-procs"),
        **_refused("there is no such file; programs may look at /proc/version",
                   "gvisor-marker-file"),
        # network
        **_taken("raw sockets inside need CAP_NET_RAW in config.json, and no flag", "net-raw",
                 "allow-packet-socket-write", switch=True),
        **_taken("segments of 64 KiB leave and come whole, wherever the host cuts them", "gso",
                 "software-gso", "gvisor-gro", switch=True),
        **_taken("checksums are left to the host, and made or checked where it leaves them to us",
                 "tx-checksum-offload", "rx-checksum-offload", switch=True),
        **_only("what waits for a link goes in its order; rates are limits of an --egress policy",
                "fifo", "none", name="qdisc"),
        **_refused("use rate_out and burst, limits of an --egress policy", "qdisc-tbf-rate",
                   "qdisc-tbf-burst"),
        **_taken("each interface has one socket, whose frames move in batches",
                 "num-network-channels", "network-processors-per-channel"),
        **_taken("the Gofer has no network", "gofer-network-namespace"),
        **_refused("an engine's nameserver needs none; use --network=host for other rules",
                   "reproduce-nat", "reproduce-nftables"),
        **_taken("frames move by packet sockets", "EXPERIMENTAL-xdp-need-wakeup", switch=True),
        **_refused("frames move by packet sockets: use --network=sandbox", "EXPERIMENTAL-xdp"),
        **_refused("the stack is part of the Sentry: use --network=sandbox", "network-proxy-path"),
        **_refused("use --network=none, or `runsc egress set ID FILE` while it runs",
                   "pause-external-networking"),
        # what runs the programs
        **_refused("it is /dev/kvm", "platform_device_path"),
        **_taken("there is no systrap here", "systrap-disable-syscall-patching",
                 "systrap-disable-fast-path", "kvm-use-cpu-nums", switch=True),
        **_taken("the filter of config.json is always loaded", "oci-seccomp", switch=True),
        **_taken("programs inside have set-user-id as on Linux, but for no_new_privs",
                 "allow-suid", switch=True),
        **_taken("the first process is protected from signals as on Linux",
                 "signal-unkillable-policy"),
        **_taken("CPUs that are seen come from the quota", "cpu-num-from-quota", switch=True),
        **_taken("memory is of huge pages where the host has some", "app-huge-pages", switch=True),
        **_taken("io_uring is not there, as where it is turned off", "iouring", switch=True),
        **_taken("cgroups inside are of version 2", "in-sandbox-cgroup"),
        **_taken("nothing of the host is adjusted: see `runsc check`", "host-settings"),
        **_taken("Sentry and Gofer are of this program", "sidecar-release-enforcement-policy",
                 "sidecar-usage-policy"),
        **_taken("state is below --root alone", "shared-root"),
        **_taken("clients are let go at once", "control-rpc-stop-timeout"),
        **_refused("give each sandbox cores of its own: linux.resources.cpu.cpus",
                   "enable-core-tags"),
        **_refused(_NO_DEVICES, "nvproxy", "nvproxy-docker", "nvproxy-driver-version",
                   "nvproxy-allow-unsupported-driver", "nvproxy-allowed-driver-capabilities",
                   "rdmaproxy", "tpuproxy", "cuda-checkpoint-path"),
        # logs and measurements
        **_taken("each process writes its own messages", "debug-command"),
        **_only("messages of the sandbox are text", "text", name="debug-log-format"),
        **_taken("messages go to standard error unless --log says otherwise", "alsologtostderr",
                 switch=True),
        **_taken("a defect's traceback goes where --debug-log says", "panic-log", "traceback"),
        **_only("what holds the kernel up is written to the log", "log", name="watchdog-action"),
        **_taken("there are no counted references that could leak", "ref-leak-mode"),
        **_taken("`runsc debug --profile` needs no preparation", "profile", switch=True),
        **_refused("use --debug with --debug-log=FILE", "debug-to-user-log"),
        **_refused("use `runsc debug --packets=FILE ID` while it runs", "log-packets", "pcap-log"),
        **_refused("use --strace-log=FILE", "strace-event"),
        **_refused("use `runsc debug --stacks ID`", "panic-signal"),
        **_refused(_LOOK, "profile-block", "profile-cpu", "profile-gc-interval", "profile-heap",
                   "profile-mutex", "trace", "coverage-report"),
        **_refused(_METRICS, "metric-server", "final-metrics-log", "profiling-metrics",
                   "profiling-metrics-log", "profiling-metrics-rate-us"),
        **_refused("annotations change no flags; give them to runsc", "allow-flag-override"),
        # checkpoints
        **_refused(_SNAPSHOT, "net-disconnect-ok", "allow-connected-on-save",
                   "allow-live-tcp-migration", "restore-spec-validation"),
    },
    "checkpoint": {
        **_taken("messages are written where --log says", "work-path", "work-dir"),
        **_taken("pages of zeros are never written", "excludes-committed-zero-pages",
                 switch=True),
        **_taken("pages go through the host's cache", "direct", switch=True),
        **_taken("cgroups are the host's", "manage-cgroups-mode"),
        **_taken("no job of a shell has to be told", "shell-job", "auto-dedup", switch=True),
        **_refused(_SNAPSHOT, "tcp-established", "tcp-skip-in-flight", "tcp-close", "ext-unix-sk",
                   "file-locks", "link-remap"),
        **_refused("there is no dump before, but see --parent", "parent-path", "pre-dump"),
        **_refused("memory is written with all else", "lazy-pages", "status-fd", "page-server"),
        **_refused("namespaces are the bundle's", "empty-ns"),
    },
    "restore": {
        **_taken("messages are written where --log says", "work-path", "work-dir"),
        **_taken("pages go through the host's cache", "direct", switch=True),
        **_taken("cgroups are the host's", "manage-cgroups-mode"),
        **_taken("no job of a shell has to be told", "shell-job", "auto-dedup", "no-subreaper",
                 switch=True),
        **_refused(_SNAPSHOT, "tcp-established", "tcp-close", "ext-unix-sk", "file-locks",
                   "link-remap"),
        **_refused("memory is read with all else", "lazy-pages"),
        **_refused("namespaces are the bundle's", "empty-ns"),
        **_refused("labels are config.json's", "lsm-profile", "lsm-mount-context"),
    },
    "create": {
        **_refused(_CLI_PIDFD, "pidfd-socket"),
        **_taken("what a program did not get is told by --debug", "user-log"),
    },
    "run": {
        **_refused(_CLI_PIDFD, "pidfd-socket"),
        **_taken("what a program did not get is told by --debug", "user-log"),
        **_refused("use --preserve-fds N", "pass-fd"),
        **_refused("name the program in config.json", "exec-fd"),
    },
    "exec": {
        **_refused(_CLI_PIDFD, "pidfd-socket"),
        **_taken("a process that is left has one that stands for it", "no-subreaper", switch=True),
        **_refused("use `runsc ps ID`, which has the numbers inside", "internal-pid-file"),
        **_refused("use --preserve-fds N", "pass-fd"),
        **_refused("name the program", "exec-fd"),
    },
    "do": {
        **_taken("what it writes stays in memory", "overlay", "force-overlay", switch=True),
        **_refused("use --network=host", "ip"),
        **_refused("the program is root of its own kernel, and this user on the host", "uid-map",
                   "gid-map"),
        **_taken("the program may do everything in its own kernel", "privileged", switch=True),
        **_taken("root may do everything in its own kernel, who is not root (--user) what files let"
                 " him", "cap-add"),
        **_taken("a port inside is reached where --publish says so", "expose"),
        **_refused("use `runsc run --detach NAME`, with a bundle (`runsc spec`)", "detach", "d",
                   "name", "restart"),
        **_refused("use --volume SRC:DST", "mount", "volumes-from"),
        **_refused("name the ports: --publish PORT:PORT", "publish-all", "P"),
        **_refused("use --user: who is not root has no rights but what files give", "cap-drop"),
        **_refused("use --user USER:GROUP", "group-add"),
        **_refused("use --policy FILE, see docs/policies.md", "security-opt"),
        **_refused("set it inside: `sh -c 'ulimit -n 100; exec COMMAND'`", "ulimit", "pids-limit"),
        **_refused("its kernel is its own, and so is what it shares", "ipc", "pid", "userns", "uts",
                   "cgroupns"),
        **_refused("use --volume FILE:/etc/hosts, or :/etc/resolv.conf", "add-host", "dns"),
        **_refused("nothing is fetched here: `podman pull` or `docker pull` it first", "pull"),
        **_refused("name one as COMMAND, such as tini", "init"),
        **_refused("use --memory: there is no swap inside", "memory-swap"),
        **_refused("with --image, COMMAND stands behind its entrypoint; a tree (--root) has none",
                   "entrypoint"),
        **_refused("what it writes outside of volumes is in memory", "tmpfs"),
        **_refused(_NO_DEVICES, "device", "gpus"),
    },
    "spec": {
        **_refused("change config.json", "cwd", "netns"),
    },
    "update": {
        **_refused("the host's cache and memory bandwidth are not divided (resctrl)",
                   "l3-cache-schema", "mem-bw-schema"),
    },
    "list": {
        **_refused("each sandbox has one container", "sandbox"),
    },
    "debug": {
        **_refused("give the container's name", "pid"),
        **_refused("use `runsc kill ID SIGNAL`", "signal"),
        **_refused("use `runsc ps ID`", "ps"),
        **_refused("use --profile TIME", "profile-cpu", "profile-block", "profile-mutex",
                   "profile-heap", "profile-delay", "trace", "delay", "duration"),
        **_refused("use --packets=FILE", "log-packets"),
        **_refused("programs mount what they may", "mount"),
    },
    "install": {
        **_refused('it is a setting of Docker: write it into daemon.json', "experimental",
                   "userland-proxy", "cgroupdriver"),
    },
}  # fmt: skip
"""Command → flag → what becomes of it."""

COMMANDS: Final = {
    "boot": "internal to gVisor",
    "gofer": "internal to gVisor",
    "umount": "internal to gVisor",
    "init": "internal to runc",
    "flags": "use `runsc --help`",
    "platforms": "use `runsc check`",
    "syscalls": "use `runsc help syscalls`",
    "usage": "use `runsc metrics ID`, or `runsc events ID`",
    "metric-server": _METRICS,
    "metric-export": _METRICS,
    "export-metrics": _METRICS,
    "metric-metadata": _METRICS,
    "mitigate": "mitigations of processors are the host's to turn on",
    "nvproxy": _NO_DEVICES,
    "statefile": "use `runsc snapshot inspect`",
    "symbolize": "tracebacks name their lines",
    "cpu-features": "use `runsc do cat /proc/cpuinfo`",
    "read-control": "values of cgroups inside are files: use `runsc exec ID cat FILE`",
    "write-control": "values of cgroups inside are files: use `runsc exec ID sh -c 'echo ...'`",
    "tar": "use `runsc exec ID tar -c ...`",
}
"""Those of the others that are none here → what to use instead."""


def verdict(command: str, flag: str) -> Verdict | None:
    """What becomes of it; None if nobody knows it."""
    if command == GLOBAL and flag.startswith("--TESTONLY-"):
        return Refused("it is for gVisor's own tests")
    return FLAGS.get(command, {}).get(flag)


def page() -> str:
    """docs/flags.md."""
    lines = [
        "# Flags of runc and of gVisor's runsc",
        "",
        "What engines may pass, or to `do` who knows `docker run`, is taken with its meaning"
        " ([usage.md](usage.md)), or stands here:"
        " taken without effect, since what it asks for is so anyway, or refused with a line that"
        " says what to use instead. Flags may have one dash or two, and switches a value"
        " (`--debug=true`), as in Go programs. This page is made by `python -m runsc.foreign`.",
        "",
        "| command | flag | what becomes of it |",
        "|---|---|---|",
    ]
    for command, flags in FLAGS.items():
        for flag, found in flags.items():
            name = f"`{command}`" if command else "(global)"
            lines.append(f"| {name} | `{flag}` | {_words(found)} |")
    lines += ["", "| command | instead |", "|---|---|"]
    lines += [f"| `{name}` | {instead} |" for name, instead in COMMANDS.items()]
    return "\n".join(lines) + "\n"


def _words(found: Verdict) -> str:
    if isinstance(found, Refused):
        return f"refused: {found.instead}"
    values = f" (only {', '.join(found.values)})" if found.values else ""
    return f"no effect{values}: {found.why}"


if __name__ == "__main__":
    print(page(), end="")
