# SPDX-License-Identifier: GPL-2.0
"""Join the user's terminal to the guest's second serial port, for --shell."""

import os
import pty
import selectors
import shutil
import sys
import termios
import time
import tty

LEAVE = b"\x1d"  # Ctrl-]
END_OF_INPUT = b"\x04"  # Ctrl-D


class Terminal:
    """A pair of pseudo-terminals: the emulator has one end, the runner the other."""

    def __init__(self):
        """Make the pair; the guest's line discipline is the only one."""
        self.port, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        # This end stays open until the emulator, started later, has opened it by name.
        self.slave = slave
        self.input = sys.stdin.fileno()
        self.saved = None
        self.selector = None
        self.left = False
        self.ended = None

    @staticmethod
    def size():
        """Return rows and columns, as arguments of stty."""
        columns, rows = shutil.get_terminal_size()
        return f"rows {rows} cols {columns}"

    def attach(self, selector):
        """Begin to send the user's input to the guest's shell, which has started."""
        self.selector = selector
        if os.isatty(self.input):
            self.saved = termios.tcgetattr(self.input)
            tty.setraw(self.input)
            os.write(2, b"[Ctrl-] leaves]\r\n")
        try:
            selector.register(self.input, selectors.EVENT_READ, self._typed)
        except PermissionError:  # a regular file, which epoll refuses: read it here
            while not self.ended:
                self._typed(os.read(self.input, 65536))

    def _typed(self, data):
        """Pass input on, or leave on Ctrl-]."""
        if not data:
            self._unregister()
            self.ended = time.monotonic()
            return
        if self.saved and LEAVE in data:
            self.left = True
            return
        os.write(self.port, data)

    def _unregister(self):
        """Stop listening to the input."""
        try:
            self.selector.unregister(self.input)
        except KeyError:
            pass

    def tick(self):
        """After the end of a piped input, send Ctrl-D: the shell reads a terminal."""
        if self.ended and time.monotonic() - self.ended > 1:
            os.write(self.port, END_OF_INPUT)
            self.ended = time.monotonic()

    def restore(self):
        """Restore the settings of the user's terminal, and close the pair."""
        if self.saved:
            termios.tcsetattr(self.input, termios.TCSADRAIN, self.saved)
        os.close(self.port)
        os.close(self.slave)
