# SPDX-License-Identifier: GPL-2.0
"""Start one of two emulators, each of which boots a kernel with two serial ports.

Bochs emulates VMX and runs KVM; QEMU without KVM has no VMX, but starts in a
fraction of the time.  Neither opens a network port.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from common import Failure
from status import NO_TOOL, USAGE

# Bochs CPU models with VMX that boot the test kernel: CPU features hidden from
# the kernel, other kernel arguments, the features of the model.
BOCHS_CPUS = {
    "corei7_haswell_4770": ((), "", "EPT with A/D bits, VPID, INVPCID (the default)"),
    "broadwell_ult": ((), "", "the same"),
    "corei7_skylake_x": (("avx512f",), "noxsave", "the same, PML and MBEC"),
    "tigerlake": ((), "noxsave", "the same, PML and MBEC"),
    "corei7_ivy_bridge_3770k": ((), "", "EPT without A/D bits, VPID, no INVPCID"),
    "corei7_sandy_bridge_2600k": ((), "", "EPT without A/D bits, VPID, no INVPCID"),
    "core2_penryn_t9600": ((), "", "VMX, but neither EPT nor VPID"),
}
# Bochs announces eight cores for any number of CPUs: without "ht" the kernel
# does not compare the two numbers, and does not warn.
BOCHS_HIDDEN = ("ht",)
# Instructions per second of guest time, which is the rate of the time-stamp
# counter.  The newer models announce another rate in CPUID, so the kernel gets
# this rate as a parameter.  Bochs emulates several CPUs in turns, and an idle CPU
# takes its turns too: with fewer instructions in a second, a wait takes fewer
# turns.
BOCHS_IPS = 50_000_000
BOCHS_SMP_IPS = 20_000_000
# With more than one CPU, timers of an idle CPU fired tens of seconds late and
# delayed every SRCU grace period: so the tick never stops.
BOCHS_SMP = "nohz=off highres=off"
BIOS = "/usr/share/bochs/BIOS-bochs-latest"
VGABIOS = "/usr/share/bochs/VGABIOS-lgpl-latest"
ISOLINUX = "/usr/lib/ISOLINUX/isolinux.bin"
LDLINUX = "/usr/lib/syslinux/modules/bios/ldlinux.c32"

# With panic=0 the machine stops after the report of a panic.  To register 256
# old-style terminals would take a second.
KERNEL_ARGS = ("console=ttyS0,115200 loglevel=5 printk.time=1 panic=0 nokaslr "
               "pty.legacy_count=0 kunit.enable=0")


@dataclass
class Machine:
    """A machine to boot, and its serial ports."""

    kernel: Path
    initrd: Path
    arguments: str
    memory: int
    cpus: int
    model: str
    scratch: Path
    console: str        # COM1: a named pipe
    output: str         # COM2: a named pipe, or a terminal
    terminal: bool
    command: list = field(default_factory=list)


def need(*names):
    """Raise a Failure unless these programs and files are installed."""
    for name in names:
        if not (os.path.exists(name) if name.startswith("/") else shutil.which(name)):
            raise Failure(f"{name} is not installed: run 'make deps'", NO_TOOL)


class Bochs:
    """Bochs 2.7 or 3.0: a CD image with ISOLINUX, kernel and root image."""

    default_cpu = "corei7_haswell_4770"
    # The boot loader prints this line first; a second one means that the machine was reset.
    banner = "ISOLINUX "

    @staticmethod
    def check(model):
        """Check that the emulator is installed and has the CPU model."""
        if model not in BOCHS_CPUS:
            raise Failure(f"unknown CPU model {model} (see --cpu help)", USAGE)
        need("bochs-bin", "xorriso", BIOS, VGABIOS, ISOLINUX, LDLINUX)

    @staticmethod
    def cpus():
        """Return the CPU models, for --cpu help."""
        return [f"{name:26} {text}" for name, (_, _, text) in BOCHS_CPUS.items()]

    @staticmethod
    def rate(cpus):
        """Return the instructions per second of guest time for a number of CPUs."""
        return BOCHS_SMP_IPS if cpus > 1 else BOCHS_IPS

    @classmethod
    def arguments(cls, model, cpus):
        """Return the kernel arguments for a model and a number of CPUs."""
        hidden, extra, _ = BOCHS_CPUS[model]
        smp = BOCHS_SMP if cpus > 1 else ""
        return (f"clearcpuid={','.join(BOCHS_HIDDEN + hidden)} "
                f"tsc_early_khz={cls.rate(cpus) // 1000} {smp} {extra}").strip()

    @staticmethod
    def medium(machine):
        """Write the CD image."""
        folder = machine.scratch / "cd"
        folder.mkdir()
        for source in (ISOLINUX, LDLINUX):
            shutil.copy(source, folder)
        os.symlink(machine.kernel, folder / "kernel")
        os.symlink(machine.initrd, folder / "initrd")
        (folder / "isolinux.cfg").write_text(
            "serial 0 115200\ndefault vm\nprompt 0\nlabel vm\nkernel kernel\n"
            f"append initrd=initrd {machine.arguments}\n")
        image = machine.scratch / "boot.iso"
        done = subprocess.run(
            ["xorriso", "-as", "mkisofs", "-quiet", "-follow-links", "-b", "isolinux.bin",
             "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
             "-o", image, folder], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False)
        if done.returncode:
            raise Failure(f"xorriso could not write the boot image:\n{done.stderr}", NO_TOOL)
        return image

    @classmethod
    def command(cls, machine):
        """Write the configuration; return the command line."""
        image = cls.medium(machine)
        mode = "term" if machine.terminal else "file"
        config = machine.scratch / "bochsrc"
        # Bochs derives time from the number of executed instructions: a run
        # repeats exactly, and a sleeping guest takes no time.  The display is
        # a terminal, whose output goes to the emulator's log.
        config.write_text(f"""\
megs: {machine.memory}
cpu: model={machine.model}, count={machine.cpus}, reset_on_triple_fault=0
cpu: ips={cls.rate(machine.cpus)}, quantum=32
romimage: file={BIOS}
vgaromimage: file={VGABIOS}
display_library: term
plugin_ctrl: speaker=0, gameport=0, parallel=0
ata0-master: type=cdrom, path="{image}", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="{machine.console}"
com2: enabled=1, mode={mode}, dev="{machine.output}"
log: "{machine.scratch / 'bochs.log'}"
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
clock: sync=none, time0=1700000000
""")
        return ["bochs-bin", "-q", "-f", config, *cls.debugger_options(machine.scratch)]

    @staticmethod
    def debugger_options(scratch):
        """Return the options that let the built-in debugger start the machine, if it has to.

        The debugger of Bochs 2.7 always waits for a command; that of Bochs 3.0 is off without the
        option -debugger; and Bochs may be built without debugger.
        """
        done = subprocess.run(["bochs-bin", "--help"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", check=False)
        options = re.findall(r"^ +(-\w+)", done.stdout + done.stderr, re.M)
        if "-rc" not in options or "-debugger" in options:
            return []
        commands = scratch / "debugger"
        commands.write_text("c\n")
        return ["-rc", commands]

    @staticmethod
    def environment():
        """Return the emulator's environment: the display needs a terminal type."""
        return {**os.environ, "TERM": "vt100"}

    @staticmethod
    def last_words(machine):
        """Return the last messages of an emulator that ended by itself."""
        log = machine.scratch / "bochs.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [line.partition(">>PANIC<< ")[2] for line in lines if ">>PANIC<< " in line]


class Qemu:
    """QEMU as an emulator: no VMX, three seconds to boot."""

    default_cpu = "max"
    # A reset ends QEMU.
    banner = None

    @staticmethod
    def check(model):
        """Check that the emulator is installed and has the CPU model."""
        need("qemu-system-x86_64")
        if model != Qemu.default_cpu:
            done = subprocess.run(["qemu-system-x86_64", "-cpu", "help"], capture_output=True,
                                  text=True, check=False)
            known = [line.split()[1] for line in done.stdout.splitlines()
                     if line.startswith("x86 ")]
            if model.split(",")[0] not in known:
                raise Failure(f"QEMU has no CPU model {model} (see --engine qemu --cpu help)",
                              USAGE)

    @staticmethod
    def cpus():
        """Return the CPU models, for --cpu help."""
        need("qemu-system-x86_64")
        done = subprocess.run(["qemu-system-x86_64", "-cpu", "help"], capture_output=True,
                              text=True, check=False)
        return [line[4:] for line in done.stdout.splitlines() if line.startswith("x86 ")]

    @staticmethod
    def arguments(_model, _cpus):
        """Return the kernel arguments for a model."""
        # On a busy machine QEMU's timer is late, and the kernel takes the timer for broken.
        return "no_timer_check"

    @staticmethod
    def command(machine):
        """Return the command line."""
        kind = "serial" if machine.terminal else "file"
        return ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
                "-display", "none", "-monitor", "none", "-accel", "tcg", "-cpu", machine.model,
                "-smp", str(machine.cpus), "-m", str(machine.memory),
                "-chardev", f"file,id=com1,path={machine.console}", "-serial", "chardev:com1",
                "-chardev", f"{kind},id=com2,path={machine.output}", "-serial", "chardev:com2",
                "-kernel", machine.kernel, "-initrd", machine.initrd,
                "-append", machine.arguments]

    @staticmethod
    def environment():
        """Return the emulator's environment."""
        return dict(os.environ)

    @staticmethod
    def last_words(_machine):
        """Return no message: QEMU writes messages to its standard error only."""
        return []


ENGINES = {"bochs": Bochs, "qemu": Qemu}
