"""The line discipline of a terminal, without files: bytes in, echo and signals out. termios(3).

`LineDiscipline.input` takes what the other side of a pty (the keyboard) sends, `output` turns what
a program writes into what the screen gets. drivers/tty/n_tty.c.
"""

from __future__ import annotations

from typing import Final

from sentry.abi.ioctl import (
    B38400,
    CREAD,
    CS8,
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ECHOPRT,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IUCLC,
    IUTF8,
    IXANY,
    IXON,
    NOFLSH,
    OCRNL,
    OLCUC,
    ONLCR,
    ONLRET,
    ONOCR,
    OPOST,
    PARMRK,
    VEOF,
    VEOL,
    VEOL2,
    VERASE,
    VINTR,
    VKILL,
    VLNEXT,
    VMIN,
    VQUIT,
    VREPRINT,
    VSTART,
    VSTOP,
    VSUSP,
    VTIME,
    VWERASE,
    XTABS,
    Termios,
)
from sentry.abi.signal import SIGINT, SIGQUIT, SIGTSTP
from sentry.errors import EAGAIN

BUFFER: Final = 4096
"""Bytes that wait to be read (N_TTY_BUF_SIZE)."""
CONTROL_CHARACTERS: Final = bytes(
    (3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0)
)
INITIAL: Final = Termios(
    ICRNL | IXON, OPOST | ONLCR, B38400 | CS8 | CREAD,
    ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN, 0, CONTROL_CHARACTERS,
)  # fmt: skip
"""tty_std_termios, and the speed that ptys have."""
UNLOCKED: Final = Termios(0, 0, 0, 0, 0, bytes(19))
_SIGNALS: Final = ((VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP))
NEWLINE, RETURN, TAB, BACKSPACE = 10, 13, 9, 8
KILL_ERASES: Final = ECHOK | ECHOKE | ECHOE
"""With all of them VKILL wipes the line off the screen."""
CONTROLS: Final = bytes((*range(32), 127))
CONTINUATIONS: Final = bytes(range(0x80, 0xC0))


class LineDiscipline:
    """The state of one terminal's input and output."""

    __slots__ = (
        "_column", "_edit", "_eofs", "_erasing", "_line_column", "_literal", "_ready", "held",
        "locked", "stopped", "termios",
    )  # fmt: skip

    def __init__(self) -> None:
        self.termios = INITIAL
        self.locked = UNLOCKED
        """TIOCSLCKTRMIOS: the bits and characters that `set` leaves as they are."""
        self._ready = bytearray()
        """What a program can read."""
        self._eofs: list[int] = []
        """Canonical mode: where in `_ready` lines end."""
        self._edit = bytearray()
        """Canonical mode: the line that is still edited."""
        self._literal = False
        self._erasing = False
        self._column = self._line_column = 0
        self.stopped = False
        """Nothing goes to the screen: VSTOP was typed, or TCOOFF."""
        self.held = False
        """TCOOFF: only TCOON lets it go on (tco_stopped)."""

    # --- what is typed

    def input(self, data: bytes) -> tuple[bytes, list[int]]:
        """Take typed bytes: what is echoed, and the signals they stand for."""
        echo = bytearray()
        signals = self.take(data, echo)
        return bytes(echo), signals

    def take(self, data: bytes, echo: bytearray) -> list[int]:
        """`input`, behind what else is echoed with it."""
        return [signo for byte in data if (signo := self._type(byte, echo))]

    def _type(self, byte: int, echo: bytearray) -> int:
        iflag, lflag, cc = self.termios.c_iflag, self.termios.c_lflag, self.termios.c_cc
        if iflag & ISTRIP:
            byte &= 0x7F
        if iflag & IUCLC and lflag & IEXTEN and _is_upper(byte):
            byte += 32
        if self._literal:
            self._literal = False
            self._keep(byte, echo)
            return 0
        if iflag & IXON and self._flow(byte, cc):
            return 0
        if lflag & ISIG:
            for index, signo in _SIGNALS:
                if byte and byte == cc[index]:
                    self._echo_control(byte, echo)
                    if not lflag & NOFLSH:
                        self.flush()
                    return signo
        if byte == RETURN:
            if iflag & IGNCR:
                return 0
            if iflag & ICRNL:
                byte = NEWLINE
        elif byte == NEWLINE and iflag & INLCR:
            byte = RETURN
        if lflag & ICANON and self._canonical(byte, cc, echo):
            return 0
        self._keep(byte, echo)
        return 0

    def _flow(self, byte: int, cc: bytes) -> bool:
        """XON and XOFF are eaten."""
        if byte and byte == cc[VSTOP] and byte != cc[VSTART]:
            self.stopped = True
            return True
        if byte and byte == cc[VSTART]:
            self.stopped = self.held or (cc[VSTOP] == cc[VSTART] and not self.stopped)
            return True
        if self.termios.c_iflag & IXANY:
            self.stopped &= self.held
        return False

    def hold(self) -> None:
        """tcflow(3) with TCOOFF."""
        self.held = self.stopped = True

    def let_go(self) -> None:
        """TCOON: ends TCOOFF, and what was typed since."""
        if self.held:
            self.held = self.stopped = False

    @property
    def flow_keys(self) -> bool:
        """Whether the master may act on ^S and ^Q itself: pty_set_termios()."""
        cc = self.termios.c_cc
        return bool(self.termios.c_iflag & IXON) and (cc[VSTOP], cc[VSTART]) == (19, 17)

    def _canonical(self, byte: int, cc: bytes, echo: bytearray) -> bool:
        """Editing characters and ends of lines. True if the byte was one."""
        lflag = self.termios.c_lflag
        if byte and byte == cc[VERASE]:
            self._erase(VERASE, echo)
        elif byte and byte == cc[VKILL]:
            self._erase(VKILL, echo)
        elif byte and byte == cc[VWERASE] and lflag & IEXTEN:
            self._erase(VWERASE, echo)
        elif byte and byte == cc[VLNEXT] and lflag & IEXTEN:
            self._literal = True
            if lflag & ECHO:
                self._end_erasing(echo)
            if lflag & ECHO and lflag & ECHOCTL:
                echo += self.output(b"^\b")
        elif byte and byte == cc[VREPRINT] and lflag & IEXTEN and lflag & ECHO:
            self._end_erasing(echo)
            self._echo_control(byte, echo)
            echo += self.output(b"\n")
            if len(echo) < BUFFER:  # n_tty.c drops echoes, too
                for kept in self._edit:
                    self._echo_control(kept, echo)
        elif byte and byte == cc[VEOF]:
            if len(self._eofs) < BUFFER:
                self._end_line()
        elif byte == NEWLINE or (byte and byte in (cc[VEOL], cc[VEOL2])):
            if not self.room:  # lost, as everything is that nobody reads
                return True
            if byte != NEWLINE:
                self._begin()
            self._edit.append(byte)
            if byte != NEWLINE:
                self._echo_control(byte, echo)
            elif lflag & (ECHO | ECHONL):
                echo += self.output(b"\n")
            self._end_line()
        else:
            return False
        return True

    def _end_line(self) -> None:
        self._ready += self._edit
        self._edit.clear()
        self._eofs.append(len(self._ready))

    def _keep(self, byte: int, echo: bytearray) -> None:
        """An ordinary byte. What a line has no room for is lost, but echoed."""
        room = BUFFER - len(self._ready) - len(self._edit)
        # with PARMRK it is two, as one is the mark of an error
        kept = bytes((byte,)) * (2 if byte == 255 and self.termios.c_iflag & PARMRK else 1)
        if self.termios.c_lflag & ICANON:
            self._begin()
            if room > len(kept):
                self._edit += kept
        else:
            if room < len(kept):
                return
            self._ready += kept
        if self.termios.c_lflag & ECHO:
            self._end_erasing(echo)
            self._echo_control(byte, echo)

    def _begin(self) -> None:
        """A character that is echoed comes: a line begins where the cursor is."""
        if self.termios.c_lflag & ECHO and not self._edit:
            self._line_column = self._column

    def _echo_control(self, byte: int, echo: bytearray) -> None:
        lflag = self.termios.c_lflag
        if not lflag & ECHO:
            return
        if lflag & ECHOCTL and _is_control(byte) and byte != TAB:
            echo += bytes((94, byte ^ 64))
            self._column += 2
        elif byte == 255:  # ECHO_OP_START: OLCUC makes no other of it
            echo.append(byte)
            self._column += 1
        else:
            echo += self.output(bytes((byte,)))

    def _erase(self, key: int, echo: bytearray) -> None:
        """eraser(): VERASE takes a character off the line, VWERASE a word, VKILL all of it."""
        line, lflag = self._edit, self.termios.c_lflag
        if not line:
            return
        if key == VKILL and not lflag & ECHO:
            line.clear()
        elif key == VKILL and lflag & KILL_ERASES != KILL_ERASES:
            line.clear()
            self._end_erasing(echo)
            self._echo_control(self.termios.c_cc[VKILL], echo)
            if lflag & ECHOK:
                echo += self.output(b"\n")
        in_word = False
        while line and (size := self._last_size()):
            byte = line[-size]
            if key == VWERASE and not _is_of_word(byte) and in_word:
                break
            in_word = in_word or _is_of_word(byte)
            gone = bytes(line[-size:])
            del line[-size:]
            if lflag & ECHO and lflag & ECHOPRT:
                self._echo_printed(gone, echo)
            elif lflag & ECHO:
                self._echo_erased(byte, key, echo)
            if key == VERASE:
                break
        if not line and lflag & ECHO:
            self._end_erasing(echo)

    def _echo_printed(self, gone: bytes, echo: bytearray) -> None:
        """ECHOPRT, for terminals of paper: what is erased is shown, between a \\ and a /."""
        if not self._erasing:
            self._erasing = True
            echo += self.output(b"\\")
        self._echo_control(gone[0], echo)
        column = self._column
        echo += self.output(gone[1:])
        self._column = column

    def _end_erasing(self, echo: bytearray) -> None:
        """finish_erasing()."""
        if self._erasing:
            self._erasing = False
            echo += self.output(b"/")

    def _last_size(self) -> int:
        """Bytes of the last character of the line; 0 if they are no whole one, with IUTF8."""
        line, size = self._edit, 1
        if not self.termios.c_iflag & IUTF8:
            return size
        if _continues(line[0]) and not line.translate(None, CONTINUATIONS):
            return 0
        while _continues(line[-size]) and size < len(line):
            size += 1
        return 0 if _continues(line[-size]) else size

    def _echo_erased(self, byte: int, key: int, echo: bytearray) -> None:
        """Wipe a character that began with `byte` off the screen."""
        lflag = self.termios.c_lflag
        is_control = _is_control(byte)
        if key == VERASE and not lflag & ECHOE:
            self._echo_control(self.termios.c_cc[VERASE], echo)
        elif byte == TAB:
            width = self._tab_width()
            self._column = max(0, self._column - width)
            echo += b"\b" * width
        elif not is_control or lflag & ECHOCTL:
            echo += self.output(b"\b \b" * (2 if is_control else 1))

    def _tab_width(self) -> int:
        """How far a tab behind the line moved: ECHO_OP_ERASE_TAB."""
        last = self._edit.rfind(TAB)
        column = self._line_column if last < 0 else 0
        behind = self._edit[last + 1 :]
        if self.termios.c_iflag & IUTF8:
            behind = behind.translate(None, CONTINUATIONS)
        shown = behind.translate(None, CONTROLS)
        column += len(shown)
        if self.termios.c_lflag & ECHOCTL:
            column += 2 * (len(behind) - len(shown))
        return 8 - column % 8

    # --- what is read

    @property
    def available(self) -> int:
        """Bytes that a read would give (FIONREAD)."""
        if self.termios.c_lflag & ICANON:
            return self._eofs[0] if self._eofs else 0
        return len(self._ready)

    @property
    def readable(self) -> bool:
        """poll(2) says that there is something to read: input_available_p()."""
        if self.termios.c_lflag & ICANON:
            return bool(self._eofs)
        cc = self.termios.c_cc
        return len(self._ready) >= (1 if cc[VTIME] else max(1, cc[VMIN]))

    def has(self, wanted: int) -> bool:
        """A read of so many bytes would not sleep: VMIN is no more than what is wanted."""
        if self.termios.c_lflag & ICANON:
            return bool(self._eofs)
        return len(self._ready) >= max(1, min(self.termios.c_cc[VMIN], wanted))

    @property
    def room(self) -> int:
        """How much can be typed."""
        return max(0, BUFFER - len(self._ready) - len(self._edit))

    @property
    def accepts(self) -> int:
        """How many bytes `input` takes now: n_tty_receive_buf_common().

        While there is no whole line there is an end to none: what is too much for it is lost.
        """
        room = self.room - 1
        if room <= 0 and self.termios.c_lflag & ICANON and not self._eofs:
            return 1
        return max(0, room)

    def read(self, count: int) -> bytes:
        """A line or a part of it; without ICANON what is there. Raises: EAGAIN. b"" is VEOF."""
        if self.termios.c_lflag & ICANON:
            if not self._eofs:
                raise EAGAIN("no line")
            taken = min(count, self._eofs[0])
        else:
            taken = min(count, len(self._ready))
            if not taken:
                raise EAGAIN("nothing typed")
        data = bytes(self._ready[:taken])
        del self._ready[:taken]
        self._eofs = [end - taken for end in self._eofs]
        while self._eofs and self._eofs[0] <= 0:
            del self._eofs[0]
            if self.termios.c_lflag & ICANON:
                break
        return data

    def flush(self) -> None:
        """Forget what was typed."""
        self._ready.clear()
        self._eofs.clear()
        self._edit.clear()
        self._erasing = False

    def set(self, termios: Termios) -> None:
        """tcsetattr(3). Leaving canonical mode, an unfinished line can be read."""
        if self.locked is not UNLOCKED:
            termios = self._keep_locked(termios)
        if self.termios.c_lflag & ICANON and not termios.c_lflag & ICANON:
            self._ready += self._edit
            self._edit.clear()
            self._eofs.clear()
        elif not self.termios.c_lflag & ICANON and termios.c_lflag & ICANON and self._ready:
            self._eofs = [len(self._ready)]
        self.termios = termios
        if not termios.c_iflag & IXON:
            self.stopped = self.held

    def _keep_locked(self, new: Termios) -> Termios:
        """unset_locked_termios(), drivers/tty/tty_ioctl.c."""
        old, lock = self.termios, self.locked
        flags = [o & k | n & ~k for o, n, k in zip(old[:4], new[:4], lock[:4], strict=True)]
        cc = bytes(o if k else n for o, n, k in zip(old.c_cc, new.c_cc, lock.c_cc, strict=True))
        return Termios._make((*flags, old.c_line if lock.c_line else new.c_line, cc))

    # --- what is written

    def output(self, data: bytes) -> bytes:
        """What the screen gets of it."""
        oflag = self.termios.c_oflag
        if not oflag & OPOST:
            return data
        if not oflag & (OCRNL | ONOCR | XTABS | ONLRET | OLCUC):
            self._follow(data, oflag)
            return data.replace(b"\n", b"\r\n") if oflag & ONLCR else data
        result = bytearray()
        for byte in data:
            self._put(byte, oflag, result)
        return bytes(result)

    def _follow(self, data: bytes, oflag: int) -> None:
        """Where the cursor is after bytes that only ONLCR changes."""
        last = max(data.rfind(b"\r"), data.rfind(b"\n") if oflag & ONLCR else -1)
        ignored = bytearray()
        for byte in data[max(last, 0) :]:
            self._put(byte, oflag, ignored)

    def _put(self, byte: int, oflag: int, result: bytearray) -> None:
        """do_output_char(), drivers/tty/n_tty.c."""
        if byte == NEWLINE:
            if oflag & (ONLCR | ONLRET):
                self._column = 0
            self._line_column = self._column
            if oflag & ONLCR:
                result.append(RETURN)
        elif byte == RETURN:
            if oflag & ONOCR and not self._column:
                return
            if oflag & OCRNL:
                byte = NEWLINE
            if byte == RETURN or oflag & ONLRET:
                self._column = self._line_column = 0
        elif byte == TAB:
            spaces = 8 - self._column % 8
            self._column += spaces
            if oflag & XTABS == XTABS:
                result += b" " * spaces
                return
        elif byte == BACKSPACE:
            self._column = max(0, self._column - 1)
        elif not _is_control(byte):
            if oflag & OLCUC and _is_lower(byte):
                byte -= 32
            if not (self.termios.c_iflag & IUTF8 and _continues(byte)):
                self._column += 1
        result.append(byte)


def _is_control(byte: int) -> bool:
    """iscntrl() of the kernel."""
    return byte < 32 or byte == 127


def _is_upper(byte: int) -> bool:
    """isupper() of the kernel, in Latin-1."""
    return 65 <= byte <= 90 or (192 <= byte <= 222 and byte != 215)


def _is_lower(byte: int) -> bool:
    """islower() of the kernel, in Latin-1."""
    return 97 <= byte <= 122 or (byte >= 223 and byte != 247)


def _continues(byte: int) -> bool:
    """A byte of a UTF-8 character that is not its first one."""
    return byte & 0xC0 == 0x80


def _is_of_word(byte: int) -> bool:
    """isalnum() of the kernel, in Latin-1, and the underscore."""
    return byte == ord("_") or (not 128 <= byte < 192 and chr(byte).isalnum())
