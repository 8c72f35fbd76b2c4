# SPDX-License-Identifier: GPL-2.0
"""Provide paths, progress lines and errors for all programs of the testbed."""

import fcntl
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
TESTBED = TOP / "testbed"
SERIES = os.environ.get("VMX_VPID_SERIES", "7.3")
START = time.monotonic()


class Failure(Exception):
    """An error for the user: the message names the error and the cure."""

    def __init__(self, text, status=1):
        """`status` is the exit status of a program that this error ends."""
        super().__init__(text)
        self.status = status


def cache_dir():
    """Return the folder outside the checkout for the kernel's source, kernel builds and tools."""
    base = os.environ.get("VMX_VPID_CACHE")
    if base:
        return Path(base).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "vmx_vpid"


def step(text):
    """Print one line of progress, with the time since the program began."""
    seconds = int(time.monotonic() - START)
    print(f"[{seconds // 60:3d}:{seconds % 60:02d}] {text}", file=sys.stderr, flush=True)


def fail(text):
    """Print an error in the testbed's form, "PROGRAM: error: TEXT"."""
    program = Path(sys.argv[0]).name
    print(f"{program}: error: {text}", file=sys.stderr, flush=True)


def main(function):
    """Run a program; turn a Failure into a message and an exit status, end quietly on Ctrl-C."""
    try:
        sys.exit(function())
    except Failure as error:
        fail(error)
        sys.exit(error.status)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def locked(path):
    """Hold a lock file, which keeps two runs from building the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            step(f"waiting for another run that holds {path.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def logged(command, log, cwd=None, what=None, progress=None):
    """Run a command with its output in a log; if the command fails, show the log's end.

    `progress`, if given, maps the number of output lines so far to a step line or None.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8", errors="replace") as out:
        with subprocess.Popen([str(c) for c in command], cwd=cwd, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace") as process:
            for count, line in enumerate(process.stdout):
                out.write(line)
                text = progress(count) if progress else None
                if text:
                    step(text)
    if process.returncode:
        tail = log.read_text(errors="replace").splitlines()[-30:]
        raise Failure(f"{what or command[0]} failed (log: {log})\n" + "\n".join(tail))


def config_of(path):
    """Return a kernel .config as a dictionary, without the options that are not set."""
    found = {}
    for line in path.read_text().splitlines():
        match = re.match(r"(CONFIG_\w+)=(.*)", line)
        if match:
            found[match[1]] = match[2]
    return found


def build_tree(debug=False):
    """Return the kernel's build tree: the user's (KDIR=) or the testbed's, built or not."""
    command = [TESTBED / "kernel", "--print", "KDIR", *(["--debug"] if debug else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr.strip().partition("error: ")[2] or done.stderr.strip())
    return Path(done.stdout.strip())
