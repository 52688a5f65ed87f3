from __future__ import annotations

import json
import shutil
import subprocess

import msgspec
import pytest

from runsc.commands.features import features


def test_features_has_the_shape_of_the_specification() -> None:
    made = msgspec.to_builtins(features())

    assert made["ociVersionMax"] == "1.2.0"
    assert "startContainer" in made["hooks"]
    assert {"ro", "bind", "rprivate", "nosuid"} <= set(made["mountOptions"])
    assert made["linux"]["cgroup"]["v2"] is True
    assert made["linux"]["mountExtensions"]["idmap"] == {"enabled": True}
    assert "SCMP_ACT_NOTIFY" not in made["linux"]["seccomp"]["actions"]


def test_features_has_no_name_that_runc_does_not_know() -> None:
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("runc is not installed")
    done = subprocess.run([runc, "features"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this runc has no features")
    theirs = json.loads(done.stdout)
    ours = msgspec.to_builtins(features())

    assert set(ours["hooks"]) <= set(theirs["hooks"])
    assert set(ours["linux"]["namespaces"]) <= set(theirs["linux"]["namespaces"])
    assert set(theirs["linux"]["capabilities"]) == set(ours["linux"]["capabilities"])
    assert set(ours["linux"]["seccomp"]["actions"]) <= set(theirs["linux"]["seccomp"]["actions"])
