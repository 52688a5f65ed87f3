"""Options of an overlay: ovl_parse_param(), ovl_fs_params_verify() of fs/overlayfs/params.c."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from sentry.errors import EINVAL

MAX_LOWERS: Final = 500
"""OVL_MAX_STACK."""
REDIRECTS: Final = {"on": "on", "off": "follow", "follow": "follow", "nofollow": "nofollow"}
"""Values of redirect_dir, and what they mean where what is there is always followed."""
_TAKEN: Final = {
    "index": ("off",), "metacopy": ("off",), "nfs_export": ("off",), "verity": ("off",),
    "uuid": ("off", "null", "auto", "on"), "xino": ("on", "off", "auto"),
}  # fmt: skip
"""Options with the values that are taken."""
_FLAGS: Final = ("default_permissions", "userxattr", "volatile")
_ADDED: Final = ("lowerdir+", "datadir+")
"""One layer each, whose path is taken as it is."""
_PATHS: Final = ("lowerdir", "upperdir", "workdir", *_ADDED)


class Options(Struct):
    """What a mount asks for."""

    data: str
    """All of it, as it came."""
    lowers: list[str]
    """Paths, the topmost layer first; behind them those for data alone, which hold none here;"""
    data_only: int = 0
    """how many these are."""
    lowerdir: str | None = None
    """The list, where they came as one."""
    upper: str = ""
    work: str = ""
    given: tuple[str, str] = ("", "")
    """Both, as they came."""
    redirect: str = "follow"
    uuid: str = "auto"
    xino: str = "off"
    user_xattr: bool = False
    volatile: bool = False
    default_permissions: bool = False

    @property
    def prefix(self) -> bytes:
        """Of the extended attributes that say how layers lie over one another."""
        return b"user.overlay." if self.user_xattr else b"trusted.overlay."

    def shown(self, *, same_fs: bool) -> str:
        """As /proc/mounts shows them: ovl_show_options()."""
        lowers = self.lowers if self.lowerdir is None else []
        first_data = len(self.lowers) - self.data_only
        parts = [
            f"{'lowerdir' if at < first_data else 'datadir'}+={_plain(path)}"
            for at, path in enumerate(lowers)
        ]
        if self.lowerdir is not None:
            parts.append(f"lowerdir={_plain(self.lowerdir)}")
        if self.upper:
            upper, work = self.given
            parts += f"upperdir={_plain(upper)}", f"workdir={_plain(work)}"
        parts += ["default_permissions"] if self.default_permissions else []
        parts += [f"redirect_dir={self.redirect}"] if self.redirect != "follow" else []
        parts += [f"uuid={self.uuid}"] if self.uuid != "auto" else []
        parts += [f"xino={self.xino}"] if self.xino != "off" and not same_fs else []
        parts += ["fsync=volatile"] if self.volatile else []
        parts += ["userxattr"] if self.user_xattr else []
        return "".join("," + part for part in parts)


def split(text: str, at: str) -> list[str]:
    """The pieces between `at`, but where a backslash is before it; backslashes stay."""
    pieces, begin, place = [], 0, 0
    while place < len(text):
        if text[place] == "\\":
            place += 1
        elif text[place] == at:
            pieces.append(text[begin:place])
            begin = place + 1
        place += 1
    return [*pieces, text[begin:]]


def unescaped(text: str) -> str:
    """ovl_unescape(): a backslash says that the next byte is one of the path."""
    found, place = [], 0
    while place < len(text):
        if text[place] == "\\" and place + 1 < len(text):
            place += 1
        found.append(text[place])
        place += 1
    return "".join(found)


def as_option(key: bytes, value: bytes | None) -> bytes:
    """A parameter of fsconfig(2) among those that have commas between: as in mount(2)."""
    if value is None:
        return key
    if key.decode(errors="replace") in _ADDED:
        value = value.replace(b"\\", b"\\\\")
    pieces = split(value.decode("utf-8", "surrogateescape"), ",")
    return key + b"=" + "\\,".join(pieces).encode("utf-8", "surrogateescape")


def check_option(option: str) -> None:
    """A single one. Raises: EINVAL."""
    key, equals, value = option.partition("=")
    if key in _PATHS:
        known = bool(value)
    elif key == "redirect_dir":
        known = value in REDIRECTS
    elif key in _TAKEN:
        known = value in _TAKEN[key]
    else:
        known = key in _FLAGS and not equals
    if not known:
        raise EINVAL(f"overlay: {option}")


def parse(data: str) -> Options:
    """The data of mount(2). Raises: EINVAL."""
    options, redirects = Options(data, []), False
    for option in filter(None, split(data, ",")):
        check_option(option)
        key, _, value = option.partition("=")
        if key == "lowerdir":
            options.lowers, options.data_only = _lowers(value)
            options.lowerdir = value
        elif key in _ADDED:
            _add(options, key, unescaped(value))
        elif key == "upperdir":
            options.upper, options.given = unescaped(value), (value, options.given[1])
        elif key == "workdir":
            options.work, options.given = unescaped(value), (options.given[0], value)
        elif key == "redirect_dir":
            options.redirect, redirects = REDIRECTS[value], True
        elif key in ("xino", "uuid"):
            setattr(options, key, value)
        elif key == "userxattr":
            options.user_xattr = True
        elif key in ("volatile", "default_permissions"):
            setattr(options, key, True)
    _check(options, redirects)
    return options


def _plain(text: str) -> str:
    """seq_escape(), for what is shown in a line of text."""
    text = text.encode("utf-8", "surrogateescape").decode(errors="replace")
    return "".join(f"\\{ord(each):03o}" if each in ", \t\n\\" else each for each in text)


def _lowers(value: str) -> tuple[list[str], int]:
    """Between colons; `::` begins a layer for data alone, of which there may be many, at the end.

    ovl_parse_param_split_lowerdirs().
    """
    paths: list[str] = []
    data_only, is_data = 0, False
    for piece in split(value, ":"):
        if not piece:
            if not paths or is_data:
                raise EINVAL("a colon that separates nothing")
            is_data = True
            continue
        if data_only and not is_data:
            raise EINVAL("a layer below one for data alone")
        data_only += is_data
        is_data = False
        paths.append(unescaped(piece))
    if is_data:
        raise EINVAL("a colon at the end")
    return paths, data_only


def _add(options: Options, key: str, path: str) -> None:
    if options.lowerdir is not None:
        raise EINVAL(f"{key} behind lowerdir")
    if key == "datadir+":
        if not options.lowers:
            raise EINVAL("data alone, and nothing above it")
        options.data_only += 1
    elif options.data_only:
        raise EINVAL("a layer below one for data alone")
    options.lowers.append(path)


def _check(options: Options, redirects: bool) -> None:
    if not options.lowers or len(options.lowers) > MAX_LOWERS:
        raise EINVAL(f"{len(options.lowers)} lower layers")
    if options.upper and not options.work:
        raise EINVAL("missing 'workdir'")
    if not options.upper:
        if len(options.lowers) == 1:
            raise EINVAL("at least 2 lowerdir are needed while upperdir nonexistent")
        options.work, options.volatile = "", False
        options.uuid = "null" if options.uuid == "on" else options.uuid
        options.redirect = "on" if options.redirect == "follow" else options.redirect
    if options.user_xattr:
        if redirects and options.redirect != "nofollow":
            raise EINVAL("conflicting options: userxattr,redirect_dir")
        options.redirect = "nofollow"
