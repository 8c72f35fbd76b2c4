# SPDX-License-Identifier: GPL-2.0
"""Read the two serial ports: the kernel's log, and the command's output."""

import re

from status import OOPS, PANIC, STALL, WARNING

# Messages by which a kernel reports an error, most severe first.  Each pattern
# has to match at the start of a message: the output of a KUnit test, for
# example, may have the same words later in the line.
REPORTS = [
    (PANIC, r"Kernel panic - not syncing"),
    (OOPS, r"BUG: (?!soft lockup|workqueue lockup|sleeping function)|Oops\b|kernel BUG at |"
           r"KASAN: |general protection fault|rust_kernel: panicked|.*\bpanicked at |"
           r"stack segment: |double fault: |(traps: )?PANIC: "),
    (STALL, r"INFO: task .* (blocked for more than|is blocked on) |"
            r"(rcu: )?INFO: rcu_\w+ .*stall|(watchdog: )?BUG: (soft|workqueue) lockup|"
            r".*hard LOCKUP"),
    (WARNING, r"WARNING: |\[ BUG: |BUG: sleeping function|INFO: (possible |suspicious RCU|"
              r"inconsistent lock state|trying to register non-static key)|UBSAN: |"
              r"DEBUG_LOCKS_WARN_ON|unchecked MSR access error|possible (circular|recursive) "
              r"locking|inconsistent lock state|suspicious RCU usage|Invalid wait context"),
]
REPORTS = [(status, re.compile(pattern)) for status, pattern in REPORTS]
PREFIX = re.compile(r"(\[[ \d.]+\])?(\[ *[TC]\d+\])? *")
PANIC_END = "---[ end Kernel panic"


class Log:
    """The kernel's console, line by line."""

    def __init__(self, mark, banner):
        """`mark` is in init's last line, `banner` starts the first line of a boot loader."""
        self.raw = bytearray()
        self.rest = b""
        self.lines = []
        self.reports = {}
        self.mark = mark
        self.banner = banner
        self.boots = 0
        self.complete = False
        self.panic_over = False

    def feed(self, data):
        """Append data from the port, and parse each complete line."""
        self.raw += data
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace").rstrip("\r"))

    def _line(self, line):
        """Parse one line: the mark, the banner, the end of a panic, or a report."""
        text = line[PREFIX.match(line).end():]
        if text == f"runner: {self.mark}":
            self.complete = True
            return
        self.lines.append(line)
        if self.banner and text.startswith(self.banner):
            self.boots += 1
        if PANIC_END in text:
            self.panic_over = True
        for status, pattern in REPORTS:
            if pattern.match(text):
                self.reports.setdefault(status, line.strip())
                break

    def worst(self):
        """Return status and first line of the most severe report, or None."""
        for status, _ in REPORTS:
            if status in self.reports:
                return status, self.reports[status]
        return None

    def tail(self, count=40):
        """Return the last lines."""
        lines = self.lines + ([self.rest.decode(errors="replace")] if self.rest else [])
        return lines[-count:]


class Output:
    """The command's output, without init's lines."""

    def __init__(self, mark):
        """`mark` begins each of init's lines."""
        self.mark = mark.encode()
        self.held = b""
        self.begun = False
        self.status = None
        self.failure = None

    def feed(self, data):
        """Append data from the port; return the part that is the command's output.

        An end of the data that may be the start of a mark is kept for the next call.
        """
        data = self.held + data
        self.held = b""
        mine = b""
        while True:
            at = data.find(self.mark)
            if at < 0:
                break
            line, newline, after = data[at:].partition(b"\n")
            if self.begun:
                mine += data[:at]
            if not newline:
                self.held = line
                return mine
            self._word(line[len(self.mark):].decode(errors="replace").strip())
            data = after
        keep = next((n for n in range(min(len(data), len(self.mark) - 1), 0, -1)
                     if data.endswith(self.mark[:n])), 0)
        self.held = data[len(data) - keep:]
        if self.begun:
            mine += data[:len(data) - keep]
        return mine

    def _word(self, word):
        """Parse one line of init: begin, end STATUS, or fail WHAT WHY."""
        verb, _, rest = word.partition(" ")
        if verb == "begin":
            self.begun = True
        elif verb == "end":
            self.status = int(rest)
        elif verb == "fail":
            what, _, why = rest.partition(" ")
            self.failure = (what, why)
