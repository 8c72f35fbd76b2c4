# SPDX-License-Identifier: GPL-2.0
"""Run a script that measures, in the emulator or on this machine, and collect what it says."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

from common import Failure, TESTBED, TOP, step
from stage import SELFTESTS, copy_program, helpers

# A boot: its number in the tables, its script, CPUs, and how long it may take in seconds.
Boot = namedtuple("Boot", "number script cpus timeout")
BOOTS = (Boot(1, "measure.sh", 1, 900), Boot(2, "moves.sh", 2, 900))

# What is measured.
KO = TOP / "build" / "test" / "vmx_vpid.ko"
PROGRAMS = ("roundtrip", "compat", "nested", "memory", "lives", "moves")
MODULES = ("vmx_vpid_cost", "vmx_vpid_flush_cost")


def put_together(folder):
    """Make a folder with what the scripts need, and no more; returns it."""
    programs = folder / "bench"
    programs.mkdir(parents=True)
    for name in PROGRAMS:
        copy_program(TOP / "build" / "selftests" / "bench" / name, programs / name)
    for name in MODULES:
        shutil.copy(KO.parent / "bench" / "modules" / f"{name}.ko", programs)
    for script in (helpers(), SELFTESTS / "functions.sh", *(TOP / "bench").glob("*.sh")):
        shutil.copy(script, folder)
    return folder


def collect(command, figures, problems):
    """Run a command and add what it says to figures and problems; prints what it does not know."""
    with subprocess.Popen([str(c) for c in command], cwd=TOP, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "step":
                step(rest)
            elif kind == "sample":
                served, table, name, least, median = rest.split()
                figures[served, table, name] = int(least), int(median)
            elif kind == "problem":
                problems.append(rest)
            else:
                print(line, end="", file=sys.stderr)
    return process.returncode


def measure(boot, model):
    """Do one boot; returns (least, median) by who served, table and name, and what went wrong."""
    figures, problems = {}, []
    with tempfile.TemporaryDirectory() as folder:
        staged = put_together(Path(folder) / "stage")
        step(f"booting the test kernel on an emulated {model}, CPUs: {boot.cpus}")
        status = collect(
            [TESTBED / "vm", "--cpu", model, "--smp", boot.cpus, "--timeout", boot.timeout,
             "--file", f"{staged}:/test", f"{KO}:/lib/modules/vmx_vpid.ko",
             "--", f"sh ./{boot.script}"], figures, problems)
    if status:
        problems.append(f"the machine of {boot.script} ended with status {status} "
                        "(testbed/vm --help lists them)")
    return figures, problems


# What this machine needs: a test, and the cure where it fails.
NEEDS = (
    (lambda: os.geteuid() == 0, "this loads modules: run it as root"),
    (lambda: "vmx" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split(),
     "the CPU has no VMX, or the firmware or a hypervisor hides it: turn it on there, or "
     "measure in the emulator by 'make bench'"),
    (lambda: KO.exists() and (TOP / "build/selftests/bench/moves").exists(),
     "module and programs are not built: run "
     "'make bench KDIR=/lib/modules/$(uname -r)/build ARGS=--native'"),
    (Path("/sys/kernel/livepatch").exists,
     "the kernel has no livepatch: boot one that has CONFIG_LIVEPATCH"),
    (lambda: not Path("/sys/module/vmx_vpid").exists(),
     "vmx_vpid is loaded: disable it in /sys/kernel/livepatch/vmx_vpid and unload it"),
    (lambda: refcount("kvm_intel") == 0, "VMs are running: stop them, since kvm_intel is reloaded"),
)


def refcount(module):
    """How many users a module has, none if it is not loaded."""
    path = Path("/sys/module") / module / "refcnt"
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def check_here():
    """Refuse a machine that cannot be measured, with the cure."""
    for fulfilled, cure in NEEDS:
        if not fulfilled():
            raise Failure(cure)


def measure_here(boot):
    """Run one script here; returns the same."""
    figures, problems = {}, []
    if boot.cpus > os.cpu_count():
        step(f"left out, since it needs {boot.cpus} CPUs: {boot.script}")
        return figures, problems
    with tempfile.TemporaryDirectory() as folder:
        staged = put_together(Path(folder) / "stage")
        status = collect(["env", "-C", staged, f"VMX_VPID_KO={KO}", "sh", f"./{boot.script}"],
                         figures, problems)
    if status:
        problems.append(f"{boot.script} ended with status {status}")
    return figures, problems
