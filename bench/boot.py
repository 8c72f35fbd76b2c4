# SPDX-License-Identifier: GPL-2.0
"""Run a script that measures, in the emulator or on this machine, and collect the figures."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

from common import Failure, TESTBED, TOP, step
from stage import SELFTESTS, copy_program, helpers

# A boot: its number in the tables, its script, its CPUs, and its timeout in seconds.
Boot = namedtuple("Boot", "number script cpus timeout")
BOOTS = (Boot(1, "measure.sh", 1, 900), Boot(2, "moves.sh", 2, 900))

# The module, programs and modules for the measurements.
KO = TOP / "build" / "test" / "vmx_vpid.ko"
PROGRAMS = ("roundtrip", "compat", "nested", "memory", "lives", "moves")
MODULES = ("vmx_vpid_cost", "vmx_vpid_flush_cost")


def put_together(folder):
    """Copy the files that the scripts need to a folder; return the folder."""
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
    """Run a command, parse its figures and problems, and print all other lines."""
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
    """Do one boot; return (least, median) by backend, table and name, and the problems."""
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


# The requirements of --native: a test, and the cure if the test fails.
NEEDS = (
    (lambda: os.geteuid() == 0, "bench/run --native loads modules: run it as root"),
    (lambda: "vmx" in Path("/proc/cpuinfo").read_text(encoding="utf-8").split(),
     "the CPU has no VMX, or the firmware or a hypervisor hides VMX: turn VMX on there, or "
     "measure in the emulator by 'make bench'"),
    (lambda: KO.exists() and (TOP / "build/selftests/bench/moves").exists(),
     "the module or the programs are not built: run "
     "'make bench KDIR=/lib/modules/$(uname -r)/build ARGS=--native'"),
    (Path("/sys/kernel/livepatch").exists,
     "the kernel has no livepatch: boot a kernel with CONFIG_LIVEPATCH"),
    (lambda: not Path("/sys/module/vmx_vpid").exists(),
     "vmx_vpid is loaded: disable vmx_vpid in /sys/kernel/livepatch/vmx_vpid, and unload it"),
    (lambda: refcount("kvm_intel") == 0, "VMs run, and kvm_intel has to reload: stop all VMs"),
)


def refcount(module):
    """Return the number of users of a module, 0 if the module is not loaded."""
    path = Path("/sys/module") / module / "refcnt"
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def check_here():
    """Raise a Failure with the cure if this machine lacks a requirement."""
    for fulfilled, cure in NEEDS:
        if not fulfilled():
            raise Failure(cure)


def measure_here(boot):
    """Run one script on this machine; return figures and problems as measure() does."""
    figures, problems = {}, []
    if boot.cpus > os.cpu_count():
        step(f"skipped, since it needs {boot.cpus} CPUs: {boot.script}")
        return figures, problems
    with tempfile.TemporaryDirectory() as folder:
        staged = put_together(Path(folder) / "stage")
        status = collect(["env", "-C", staged, f"VMX_VPID_KO={KO}", "sh", f"./{boot.script}"],
                         figures, problems)
    if status:
        problems.append(f"{boot.script} ended with status {status}")
    return figures, problems
