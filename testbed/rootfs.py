# SPDX-License-Identifier: GPL-2.0
"""Write the root image: a cpio archive ("newc"), without a cpio program.

The directories above a file are entries of the archive, too.
"""

import os
import shutil
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from common import Failure, TESTBED
from status import MISSING_FILE, NO_KERNEL, NO_TOOL

# The places of the modules in a build tree, by their names in the guest.
KVM_MODULES = {
    "irqbypass": "virt/lib/irqbypass.ko",
    "kvm": "arch/x86/kvm/kvm.ko",
    "kvm-intel": "arch/x86/kvm/kvm-intel.ko",
}
DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "root", "proc", "sys", "dev", "tmp",
               "lib/modules", "test")


class Archive:
    """A cpio archive that is being written to a file."""

    def __init__(self, path):
        """Begin an archive."""
        self.file = open(path, "wb")  # pylint: disable=consider-using-with
        self.inode = 0
        self.names = set()

    def _entry(self, name, mode, data=b"", device=(0, 0)):
        """Write one entry: header, name, data, each padded to four bytes."""
        raw = name.encode("utf-8", "surrogateescape") + b"\0"
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self.file.write(header + raw + bytes(-(len(header) + len(raw)) % 4))
        self.file.write(data)
        self.file.write(bytes(-len(data) % 4))
        self.names.add(name)

    def _parents(self, name):
        """Write the directories above a name, unless the archive has them."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            self.directory("/".join(parts[:depth]))

    def directory(self, name, mode=0o755):
        """Add a directory."""
        if name not in self.names:
            self._parents(name)
            self._entry(name, stat.S_IFDIR | mode)

    def data(self, name, data, mode=0o644):
        """Add a file with the given contents."""
        self._parents(name)
        self._entry(name, stat.S_IFREG | mode, data)

    def console(self):
        """Add /dev/console: the kernel opens it for init before devtmpfs is there."""
        self.directory("dev")
        self._entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))

    def tree(self, host, name):
        """Add a file or a directory of the host with its mode; return the added files."""
        added = []
        mode = os.lstat(host).st_mode if os.path.islink(host) else os.stat(host).st_mode
        if stat.S_ISDIR(mode):
            self.directory(name, stat.S_IMODE(mode))
            for child in sorted(os.listdir(host)):
                added += self.tree(os.path.join(host, child), f"{name}/{child}")
        elif stat.S_ISLNK(mode):
            self._parents(name)
            self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(os.readlink(host)))
        elif stat.S_ISREG(mode):
            self.data(name, Path(host).read_bytes(), stat.S_IMODE(mode))
            added.append((host, name))
        else:
            raise Failure(f"{host} is neither a file nor a directory nor a link", MISSING_FILE)
        return added

    def close(self):
        """Write the trailer, and pad the archive to a whole block."""
        self.inode = -1
        self._entry("TRAILER!!!", 0)
        self.file.write(bytes(-self.file.tell() % 512))
        self.file.close()


def interpreter(path):
    """Return the dynamic loader that an ELF file names, or None."""
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return None
        offset, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for index in range(count):
            file.seek(offset + index * size)
            entry = file.read(56)
            if len(entry) == 56 and struct.unpack_from("<I", entry)[0] == 3:  # PT_INTERP
                file.seek(struct.unpack_from("<Q", entry, 8)[0])
                return file.read(struct.unpack_from("<Q", entry, 32)[0]).rstrip(b"\0").decode()
    return None


# Symbols of KVM's modules that nothing looks up by name.  When a module loads,
# the kernel walks through all symbols for each traceable function: without these
# symbols, half of all, kvm.ko loads four seconds faster in Bochs.
UNUSED_SYMBOLS = (".L*", "__pfx_*", "__kstrtab_*", "__kstrtabns_*", "__ksymtab_*", "__flags_*")


def slimmed(path, scratch):
    """Return a copy of a module of KVM without debug sections and unused symbols."""
    tool = shutil.which("objcopy")
    if not tool:
        raise Failure("objcopy is not installed: run 'make deps'", NO_TOOL)
    target = scratch / path.name
    subprocess.run([tool, "--strip-debug", "--discard-locals", "--wildcard",
                    *(f"--strip-unneeded-symbol={pattern}" for pattern in UNUSED_SYMBOLS),
                    path, target], check=True)
    return target


def split_file(text):
    """Return the halves of a --file argument: HOST, and GUEST without its leading slash."""
    host, colon, guest = text.rpartition(":")
    if not colon or not guest.startswith("/"):
        host, guest = text, "/test/" + os.path.basename(os.path.abspath(text))
    elif guest.endswith("/"):
        guest += os.path.basename(os.path.abspath(host))
    guest = os.path.normpath(guest).lstrip("/")
    if not os.path.exists(host):
        raise Failure(f"no such file: {host} (--file {text})", MISSING_FILE)
    if guest in ("", "."):
        raise Failure(f"--file {text}: a file cannot take the place of the root", MISSING_FILE)
    return host, guest


@dataclass
class Kvm:
    """The modules of KVM in a root image."""

    present: bool
    # A stock kernel gets its modules as they are, signed.
    slim: bool


def base(archive, build, kvm, scratch):
    """Add the files that every run needs: busybox, init, the modules of KVM."""
    busybox = shutil.which("busybox")
    if not busybox or interpreter(busybox):
        raise Failure("no static busybox: run 'make deps'", NO_TOOL)
    for name in DIRECTORIES:
        archive.directory(name, 0o1777 if name == "tmp" else 0o755)
    archive.console()
    archive.data("bin/busybox", Path(busybox).read_bytes(), 0o755)
    archive.data("init", (TESTBED / "guest_init").read_bytes(), 0o755)
    for name, place in KVM_MODULES.items() if kvm.present else ():
        path = build / place
        if path.exists():
            path = slimmed(path, scratch) if kvm.slim else path
            archive.data(f"lib/modules/{name}.ko", path.read_bytes())
        elif name != "irqbypass":  # not a module in every configuration
            raise Failure(f"{build} has no {place}: run 'make kernel'", NO_KERNEL)


def make(path, build, kvm, module, files, settings, command):
    """Write the root image of one run.

    `settings` is the text of /runner.conf.  `module`, if any, is copied unchanged:
    strip would damage the livepatch sections of the module.
    """
    archive = Archive(path)
    base(archive, build, kvm, path.parent)
    added = []
    for text in files:
        host, guest = split_file(text)
        added += archive.tree(host, guest)
    if module:
        archive.data(f"lib/modules/{module.name}", module.read_bytes())
    archive.data("runner.conf", settings.encode("utf-8", "surrogateescape"))
    archive.data("runner.command", command.encode("utf-8", "surrogateescape"))
    archive.close()
    for host, guest in added:
        loader = interpreter(host)
        if loader and loader.lstrip("/") not in archive.names:
            raise Failure(f"{host} (/{guest} in the guest) needs {loader}, which is not in the "
                          "image: link it with -static", MISSING_FILE)
