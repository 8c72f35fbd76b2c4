# SPDX-License-Identifier: GPL-2.0
"""Run a machine once: start the emulator, read its ports, determine how the run ended."""

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
# Seconds of host time: until the log has init's last line after the command's
# end; until a panic is printed; until a command ends by itself after an oops,
# which may have left a lock held.
LOG_GRACE = 10
PANIC_GRACE = 10
OOPS_GRACE = 60
GATHER = 0.02
SAID_BY_INIT = {"novmx": NO_VMX, "kvm": NO_KVM, "module": NO_MODULE}


def die_with_parent():
    """Make the kernel end the emulator if the runner is killed and cannot clean up."""
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

        The pipe is open for writing too, which Linux allows: a read never sees
        its end, and the emulator never waits for a reader.
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
        """Kill the emulator, in any state."""
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def _output(self, data):
        """Pass data of the second port on."""
        begun = self.output.begun
        self.sink(self.output.feed(data))
        if self.terminal and self.output.begun and not begun:
            self.terminal.attach(self.selector)

    def _read(self, wait):
        """Read from every port that has data; return whether the emulator has ended."""
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
        # The emulators write byte by byte: let some bytes gather.
        time.sleep(GATHER)
        return gone

    def _for(self, event, seconds):
        """Return whether an event, first seen now or earlier, is more than `seconds` old."""
        return time.monotonic() - self.since.setdefault(event, time.monotonic()) > seconds

    def _listen(self, deadline):
        """Wait for the first event that ends a run; return the exit status."""
        while True:
            gone = self._read(1)
            while gone and self._more():  # read what the emulator wrote before its end
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
        """Return whether a port has unread data."""
        return any(key.data is not None for key, _ in self.selector.select(0))

    def _verdict(self):
        """End a run whose command has ended: by its status, or by a report of the kernel."""
        if self.log.worst():
            return self._report(f"; the command's status was {self.output.status}")
        return self.output.status

    def _report(self, more=""):
        """End a run by the most severe report of the kernel."""
        status, line = self.log.worst()
        return self._end(status, f"{MEANING[status]}: {line}{more}")

    def _not_started(self):
        """End a run in which init could not start the command."""
        if self.log.worst():
            return self._report()
        what, why = self.output.failure
        status = SAID_BY_INIT.get(what, ENDED)
        return self._end(status, f"{MEANING[status]}: {why}")

    def _gone(self, gone):
        """End a run whose machine ended or restarted by itself."""
        words = "; ".join(self.engine.last_words(self.machine))
        if gone and not self.log.raw:
            said = (self.machine.scratch / "engine.log").read_text(errors="replace")
            return self._end(ENGINE, f"{MEANING[ENGINE]}: {words or said.strip()[-2000:]}")
        if self.log.worst():
            return self._report("; then the guest ended")
        how = "it was switched off or reset" if gone else "it was reset"
        return self._end(ENDED, f"{MEANING[ENDED]}: {words or how}")

    def _timeout(self):
        """End a run whose time is up."""
        if self.log.worst():
            return self._report(f"; then nothing for the rest of {self.timeout} s")
        stage = ("the command was running" if self.output.begun
                 else "the guest was still booting" if self.log.boots or self.log.raw
                 else "the kernel printed nothing")
        return self._end(TIMEOUT, f"{MEANING[TIMEOUT]}: {self.timeout} s, {stage}")

    def _end(self, status, text):
        """Raise the end of a run: the status, the reason and the log's end."""
        raise Ended(text, status, self.log.tail())


class Ended(Failure):
    """A run that failed by itself, and not by the status of the command."""

    def __init__(self, text, status, tail):
        """`tail` is the end of the kernel's log."""
        super().__init__(text, status)
        self.tail = tail
