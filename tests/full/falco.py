"""Falco's side of its plug-in API, version 3: what its engine calls, by ctypes."""

from __future__ import annotations

import ctypes as c
import ipaddress
import json
import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.bundle import REPOSITORY

SOURCE = REPOSITORY / "examples/falco/plugin"
SUCCESS, FAILURE, TIMEOUT, END = 0, 1, -1, 2
TYPES = {"uint64": 8, "string": 9, "abstime": 21, "bool": 25, "ipaddr": 40}
TYPE_NAMES = {number: name for name, number in TYPES.items()}


class Event(c.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("ts", c.c_uint64), ("tid", c.c_uint64), ("len", c.c_uint32),
                ("type", c.c_uint16), ("nparams", c.c_uint32))  # fmt: skip


class EventInput(c.Structure):
    _fields_ = (("evt", c.c_void_p), ("evtnum", c.c_uint64), ("evtsrc", c.c_char_p))


class Buffer(c.Structure):
    _fields_ = (("len", c.c_uint32), ("ptr", c.c_void_p))


class Field(c.Structure):
    _fields_ = (("res", c.c_void_p), ("res_len", c.c_uint64), ("field_id", c.c_uint32),
                ("field", c.c_char_p), ("arg_key", c.c_char_p), ("arg_index", c.c_uint64),
                ("arg_present", c.c_uint32), ("ftype", c.c_uint32),
                ("flist", c.c_uint32))  # fmt: skip


class ExtractInput(c.Structure):
    _fields_ = (("owner", c.c_void_p), ("error", c.c_void_p), ("num_fields", c.c_uint32),
                ("fields", c.POINTER(Field)), ("reader", c.c_void_p * 4),
                ("ext", c.c_void_p))  # fmt: skip


class InitInput(c.Structure):
    _fields_ = (("config", c.c_char_p), ("owner", c.c_void_p), ("error", c.c_void_p),
                ("tables", c.c_void_p), ("log_fn", c.c_void_p))  # fmt: skip


def built(folder: Path, *flags: str) -> Path:
    """The library, by its Makefile."""
    for name in ("Makefile", "runsc.c", "source.c", "fields.c", "runsc.h", "plugin.h"):
        (folder / name).write_bytes((SOURCE / name).read_bytes())
    cflags = "CFLAGS=" + " ".join(("-O2", "-g", *flags))
    subprocess.run(["make", "-s", "-C", folder, cflags], check=True)
    return folder / "librunsc.so"


class Plugin:
    """Loaded and begun; `open` begins a capture."""

    def __init__(self, library: Path, config: str = "") -> None:
        self.lib = lib = c.CDLL(str(library))
        for name in ("get_required_api_version", "get_name", "get_fields", "get_event_source",
                     "get_extract_event_sources", "get_last_error", "event_to_string",
                     "get_version", "get_contact", "get_description"):  # fmt: skip
            getattr(lib, f"plugin_{name}").restype = c.c_char_p
        lib.plugin_init.restype = lib.plugin_open.restype = c.c_void_p
        rc = c.c_int32()
        self.state = c.c_void_p(lib.plugin_init(c.byref(InitInput(config.encode())), c.byref(rc)))
        self.rc = rc.value
        self.fields = json.loads(lib.plugin_get_fields())
        self._handle: c.c_void_p | None = None

    @property
    def error(self) -> str:
        text: bytes = self.lib.plugin_get_last_error(self.state)
        return text.decode()

    def open(self, parameters: str) -> int:
        rc = c.c_int32()
        handle = self.lib.plugin_open(self.state, parameters.encode(), c.byref(rc))
        self._handle = c.c_void_p(handle) if handle else None
        return rc.value

    def next(self) -> tuple[int, list[bytes]]:
        """What there is now; copies, as the engine may make them."""
        count, events = c.c_uint32(), c.POINTER(c.c_void_p)()
        rc = self.lib.plugin_next_batch(self.state, self._handle, c.byref(count), c.byref(events))
        found = []
        for n in range(count.value):
            address = events[n] or 0
            found.append(c.string_at(address, Event.from_address(address).len))
        return rc, found

    def until(self, most: int = 1000) -> list[bytes]:
        """All events to the end of the source, or the first moment without one after some."""
        found: list[bytes] = []
        for _ in range(most):
            rc, more = self.next()
            found += more
            if rc == END or (rc == TIMEOUT and found):
                break
        return found

    def extract(self, event: bytes, *names: str) -> list[Any]:
        """Values of fields: "proc.name", "evt.arg[path]", "proc.aname[1]"; None: it has none."""
        return [value_of(TYPE_NAMES[each.ftype], each) for each in self.asked(event, *names)]

    def asked(self, event: bytes, *names: str) -> list[Field]:
        """The same as the plug-in has answered: its memory."""
        asked = (Field * len(names))()
        for place, name in zip(asked, names, strict=True):
            plain, bracket, key = name.partition("[")
            number = next(n for n, each in enumerate(self.fields) if each["name"] == plain)
            place.field_id, place.field = number, plain.encode()
            place.ftype = TYPES[self.fields[number]["type"]]
            key = key.rstrip("]")
            place.arg_present = bool(bracket)
            place.arg_key = key.encode() if bracket else None
            place.arg_index = int(key) if key.isdecimal() else 0
        buffer = c.create_string_buffer(event, len(event))
        given = EventInput(c.addressof(buffer), 1, b"runsc")
        wanted = ExtractInput(num_fields=len(names), fields=asked)
        rc = self.lib.plugin_extract_fields(self.state, c.byref(given), c.byref(wanted))
        if rc != SUCCESS:
            raise ValueError(self.error)
        return list(asked)

    def text(self, event: bytes) -> str:
        buffer = c.create_string_buffer(event, len(event))
        made: bytes = self.lib.plugin_event_to_string(
            self.state, c.byref(EventInput(c.addressof(buffer), 1, b"runsc"))
        )
        return made.decode()

    def close(self) -> None:
        if self._handle is not None:
            self.lib.plugin_close(self.state, self._handle)
            self._handle = None

    def destroy(self) -> None:
        self.close()
        self.lib.plugin_destroy(self.state)


def value_of(kind: str, field: Field) -> Any:
    if not field.res_len:
        return None
    at = field.res or 0
    if kind == "string":
        return c.string_at(c.c_void_p.from_address(at).value or 0).decode()
    if kind == "bool":
        return bool(c.c_uint32.from_address(at).value)
    if kind == "ipaddr":
        buffer = Buffer.from_address(at)
        return str(ipaddress.ip_address(c.string_at(buffer.ptr or 0, buffer.len)))
    return c.c_uint64.from_address(at).value


def hostile(library: str, path: str, seed: int) -> None:
    """For a process of its own, with a sanitizer: damaged lines over sockets, damaged events."""
    randomly = random.Random(seed)
    line = json.dumps({"point": "syscall/connect/exit", "dropped": 1, "record": {
        "context_data": {"time_ns": 5, "ancestry": ["1 sh", "x", "9"], "credentials": {}},
        "args": ["a" * 50, "b"], "peer": "[::1]:80", "pathname": "/a/b", "exit": {"errorno": 2},
        "count": (1 << 64) - 1,
    }}).encode()  # fmt: skip
    plugin = Plugin(Path(library))
    assert plugin.open(f"unix:{path}") == SUCCESS
    names = [each["name"] + ("[1]" if "arg" in each else "") for each in plugin.fields]
    for _ in range(100):
        data = bytearray(line + b"\n") * randomly.randint(1, 100)
        for _ in range(randomly.randint(0, 3)):
            data[randomly.randrange(len(data))] = randomly.randrange(256)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(data[: randomly.randint(1, len(data))])
        for event in plugin.until(3):
            fields = plugin.asked(event, *names)
            plugin.text(event)  # what was extracted is there until it is extracted again
            for each in fields:
                value_of(TYPE_NAMES[each.ftype], each)
            broken = bytearray(event)
            broken[randomly.randrange(len(broken))] ^= 1 << randomly.randrange(8)
            header = Event.from_buffer(broken)
            header.len = len(broken)  # it is the engine's, which is right about that
            with suppress(ValueError):
                plugin.extract(bytes(broken), *names)
    plugin.destroy()


if __name__ == "__main__":
    hostile(sys.argv[1], sys.argv[2], int(sys.argv[3]))
