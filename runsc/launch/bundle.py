"""A bundle that is understood: what `create` and `run` begin with."""

from __future__ import annotations

import os

import msgspec

from runsc.containers.names import check_id
from runsc.launch import launch
from runsc.oci import convert, spec
from runsc.options import Globals

NO_HOST_NETWORK = (
    "config.json lists no network namespace, which asks for the host's network: the container has a"
    " loopback interface alone, unless runsc is told --network=host"
)


def _covered(container: convert.Container) -> convert.Container:
    """What is written to its bind mounts does not reach the host either."""
    exports, mounts = list(container.exports), list(container.mounts)
    layer = {"overlay": container.root.overlay, "overlay_size": container.root.overlay_size}
    for index, mount in enumerate(mounts):
        place = mount.attachment
        if place is None or not exports[place].writable or exports[place].special:
            continue
        exports[place] = msgspec.structs.replace(exports[place], writable=False)
        mounts[index] = msgspec.structs.replace(mount, **layer)
    return msgspec.structs.replace(container, exports=tuple(exports), mounts=tuple(mounts))


def understood(
    settings: Globals, bundle: str, container_id: str
) -> tuple[launch.Identity, convert.Container]:
    """Read the bundle. Raises: RuntimeFailure."""
    check_id(container_id)
    document = spec.load(bundle)
    bundle = os.path.realpath(bundle)
    if settings.debug:
        from runsc.oci import ignored  # noqa: PLC0415

        for line in ignored.fields(bundle):
            settings.log.debug(line)
    return described(settings, bundle, document, container_id)


def described(
    settings: Globals, bundle: str, document: spec.Spec, container_id: str
) -> tuple[launch.Identity, convert.Container]:
    """What a config.json of that folder says. Raises: RuntimeFailure."""
    container = convert.container(bundle, document, settings.overlay, settings.log.warning)
    container = as_told(settings, container)
    if settings.network is None and "network" not in dict(container.namespaces):
        settings.log.warning(NO_HOST_NETWORK)
    identity = launch.Identity(
        container_id,
        bundle,
        container.exports[0].path,
        document.oci_version,
        document.annotations or {},
    )
    return identity, container


def as_told(settings: Globals, container: convert.Container) -> convert.Container:
    """With what global flags say of the host's files. Raises: RuntimeFailure."""
    root = msgspec.structs.replace(container.root, overlay_size=settings.overlay_size)
    container = msgspec.structs.replace(container, root=root)
    if settings.overlay_mounts:
        container = _covered(container)
    if settings.file_access == "shared":
        first, *others = container.exports
        first = msgspec.structs.replace(first, is_shared=True)
        root = msgspec.structs.replace(root, is_shared=True)
        container = msgspec.structs.replace(container, root=root, exports=(first, *others))
    if settings.exclusive_mounts:
        from runsc.launch import volumes  # noqa: PLC0415  few ask for it

        container = volumes.exclusive(container, settings.log.warning)
    if settings.host_uds in ("none", "create"):
        shut = (msgspec.structs.replace(each, connects=False) for each in container.exports)
        container = msgspec.structs.replace(container, exports=tuple(shut))
    if settings.opens_sockets or settings.binds_sockets:
        first, *others = container.exports
        shown = [
            msgspec.structs.replace(
                each,
                reaches=settings.opens_sockets and not each.is_file,
                binds=settings.binds_sockets and not each.is_file and each.writable,
            )
            for each in others
        ]
        container = msgspec.structs.replace(container, exports=(first, *shown))
    if settings.host_fifo == "none":
        shut = (msgspec.structs.replace(each, opens=False) for each in container.exports)
        container = msgspec.structs.replace(container, exports=tuple(shut))
    return container
