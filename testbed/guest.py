# SPDX-License-Identifier: GPL-2.0
"""One run of a machine: start the emulator, listen to it, decide how it ended."""

import ctypes
import os
import selectors
import signal
import subprocess
import time

from common import Failure
from console import Log, Output
from status import (ENDED, ENGINE, MEANING, NO_KVM, NO_MODULE, NO_VMX, OOPS, PANIC, STALL,
                    TIMEOUT)

PR_SET_PDEATHSIG = 1
# Seconds of host time: for the log to reach the runner's last line after the
# command's end; for a panic to be printed; for a command to end by itself after
# an oops, which may have left a lock held.
LOG_GRACE = 10
PANIC_GRACE = 10
OOPS_GRACE = 60
GATHER = 0.02
SAID_BY_INIT = {"novmx": NO_VMX, "kvm": NO_KVM, "module": NO_MODULE}


def die_with_parent():
    """Make the emulator end when the runner is killed without a chance to clean up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Guest:
    """A running machine."""

    def __init__(self, engine, machine, mark, timeout, sink, terminal=None):
        """`sink` takes the command's output; `terminal` is the user's, for a shell."""
        self.engine = engine
        self.machine = machine
        self.log = Log(mark, engine.banner)
        self.output = Output(mark)
        self.sink = sink
        self.terminal = terminal
        self.timeout = timeout
        self.process = None
        self.since = {}
        self.selector = selectors.DefaultSelector()

    def _pipe(self, path):
        """Make a named pipe and open it.

        Open for writing too, which Linux allows: so it never reads as ended,
        and the emulator never waits for a reader.
        """
        os.mkfifo(path)
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def run(self):
        """Boot, wait for the end, switch off; return the exit status."""
        console = self._pipe(self.machine.console)
        self.selector.register(console, selectors.EVENT_READ, self.log.feed)
        if self.terminal:
            port = self.terminal.port
        else:
            port = self._pipe(self.machine.output)
        self.selector.register(port, selectors.EVENT_READ, self._output)
        command = [str(word) for word in self.engine.command(self.machine)]
        try:
            with open(self.machine.scratch / "engine.log", "wb") as log:
                self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    cwd=self.machine.scratch, env=self.engine.environment(),
                    start_new_session=True, preexec_fn=die_with_parent)
            ended = os.pidfd_open(self.process.pid)
            self.selector.register(ended, selectors.EVENT_READ, None)
            return self._listen(time.monotonic() + self.timeout)
        finally:
            self.kill()

    def kill(self):
        """Switch off, whatever state it is in."""
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def _output(self, data):
        """Hand on what came from the second port."""
        begun = self.output.begun
        self.sink(self.output.feed(data))
        if self.terminal and self.output.begun and not begun:
            self.terminal.attach(self.selector)

    def _read(self, wait):
        """Read from every end that has something; True when the emulator is gone."""
        gone = False
        for key, _ in self.selector.select(wait):
            if key.data is None:
                gone = True
                continue
            try:
                data = os.read(key.fd, 65536)
            except OSError:  # the other end of a terminal is closed
                self.selector.unregister(key.fd)
                continue
            key.data(data)
        # The emulators write byte by byte: let some gather.
        time.sleep(GATHER)
        return gone

    def _for(self, event, seconds):
        """Whether an event, first seen now or earlier, is that many seconds old."""
        return time.monotonic() - self.since.setdefault(event, time.monotonic()) > seconds

    def _listen(self, deadline):
        """Wait for the first thing that ends a run; return its exit status."""
        while True:
            gone = self._read(1)
            while gone and self._more():  # it wrote before it ended: take the rest
                self._read(0)
            if self.terminal:
                self.terminal.tick()
            reports = self.log.reports
            if self.output.status is not None:
                if self.log.complete or gone or self._for("command's end", LOG_GRACE):
                    return self._verdict()
            elif self.output.failure:
                if self.log.complete or gone or self._for("failure", LOG_GRACE):
                    return self._not_started()
            elif PANIC in reports and (self.log.panic_over or gone
                                       or self._for("panic", PANIC_GRACE)):
                return self._report()
            elif gone or self.log.boots > 1:
                return self._gone(gone)
            elif self.terminal and self.terminal.left:
                return self._report() if self.log.worst() else 0
            elif (not self.terminal and (OOPS in reports or STALL in reports)
                  and self._for("oops", OOPS_GRACE)):
                return self._report()
            if time.monotonic() > deadline:
                return self._timeout()

    def _more(self):
        """Whether a port has something left to read."""
        return any(key.data is not None for key, _ in self.selector.select(0))

    def _verdict(self):
        """The command has ended: its status, unless the kernel complained."""
        if self.log.worst():
            return self._report(f"; the command's status was {self.output.status}")
        return self.output.status

    def _report(self, more=""):
        """The kernel complained: say so."""
        status, line = self.log.worst()
        return self._end(status, f"{MEANING[status]}: {line}{more}")

    def _not_started(self):
        """Init could not prepare what the command needs."""
        if self.log.worst():
            return self._report()
        what, why = self.output.failure
        status = SAID_BY_INIT.get(what, ENDED)
        return self._end(status, f"{MEANING[status]}: {why}")

    def _gone(self, gone):
        """The machine ended or restarted by itself."""
        words = "; ".join(self.engine.last_words(self.machine))
        if gone and not self.log.raw:
            said = (self.machine.scratch / "engine.log").read_text(errors="replace")
            return self._end(ENGINE, f"{MEANING[ENGINE]}: {words or said.strip()[-2000:]}")
        if self.log.worst():
            return self._report("; then the guest ended")
        how = "it was switched off or reset" if gone else "it was reset"
        return self._end(ENDED, f"{MEANING[ENDED]}: {words or how}")

    def _timeout(self):
        """The time is up."""
        if self.log.worst():
            return self._report(f"; then nothing for the rest of {self.timeout} s")
        stage = ("the command was running" if self.output.begun
                 else "the guest was still booting" if self.log.boots or self.log.raw
                 else "the kernel said nothing")
        return self._end(TIMEOUT, f"{MEANING[TIMEOUT]}: {self.timeout} s, {stage}")

    def _end(self, status, text):
        """Show the log's end and the reason; return the status."""
        raise Ended(text, status, self.log.tail())


class Ended(Failure):
    """A run that failed by itself, not by its command's status."""

    def __init__(self, text, status, tail):
        """`tail` is the end of the kernel's log."""
        super().__init__(text, status)
        self.tail = tail
