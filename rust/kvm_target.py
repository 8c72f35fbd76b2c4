#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Write rust/kvm_target.h: the kernel and the KVM that the module is built for.

The module reads KVM's structures at offsets that the compiler took from the headers.  Another
build of KVM may have other offsets, so the module names the build-ids of vmlinux, kvm and kvm_intel
and attaches to nothing else.  The header also has the symbol that KVM calls where it handles an EPT
misconfiguration: gcc splits handle_ept_misconfig() and calls handle_ept_misconfig.part.0.

With a module as the second argument, the names of the symbols that the module imports from kvm and
kvm_intel are looked up instead: with one that is missing, livepatch would refuse kvm_intel.

Usage: kvm_target.py BUILD_TREE >HEADER
       kvm_target.py BUILD_TREE vmx_vpid.ko
"""

import gzip
import lzma
import re
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

GNU_BUILD_ID = 3
PT_NOTE = 4
SHT_SYMTAB = 2
SHT_NOTE = 7
MODULES = {"KVM": "arch/x86/kvm/kvm.ko", "KVM_INTEL": "arch/x86/kvm/kvm-intel.ko"}
# How livepatch writes a symbol of a module, see the kernel's livepatch/module-elf-format.rst.
IMPORT = re.compile(rb"\.klp\.sym\.(kvm|kvm_intel)\.(.+),\d+")
MISCONFIG = "handle_ept_misconfig"
# Functions that the livepatch replaces and the module does not import.
REPLACED = (b"allocate_vpid", b"free_vpid")
# The magic numbers of a compressed kernel, and what unpacks each.
COMPRESSIONS = (
    (b"\x1f\x8b\x08", lambda data: gzip.zlib.decompressobj(31).decompress(data)),
    (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x28\xb5\x2f\xfd", lambda data: filtered(["zstd", "-dc"], data)),
    (b"\x02\x21\x4c\x18", lambda data: filtered(["lz4", "-dc"], data)),
)


class Unreadable(Exception):
    """A file that is not what its name says."""


def filtered(command, data):
    """Return the output of a program that unpacks its input, even with bytes behind that."""
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=False)
    return done.stdout


def unpacked(image):
    """Return the ELF file in a bzImage (Documentation/arch/x86/boot.rst of the kernel)."""
    if image[0x202:0x206] != b"HdrS":
        raise Unreadable("no bzImage")
    start, length = struct.unpack_from("<II", image, 0x248)
    payload = image[(image[0x1f1] + 1) * 512 + start:][:length]
    for magic, unpack in COMPRESSIONS:
        if payload.startswith(magic):
            return unpack(payload)
    raise Unreadable("a bzImage with an unknown compression")


def sections(elf, wanted):
    """Yield the sections of a type in an ELF file: (offset, size, number of the linked section)."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise Unreadable("no ELF file")
    table, = struct.unpack_from("<Q", elf, 40)
    entry, count = struct.unpack_from("<HH", elf, 58)
    for index in range(count):
        _, kind, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", elf,
                                                               table + index * entry)
        if kind == wanted or wanted is None:
            yield offset, size, link


def notes(elf):
    """Yield the places of the notes of an ELF file, as (offset, size)."""
    for offset, size, _ in sections(elf, SHT_NOTE):
        yield offset, size
    table, = struct.unpack_from("<Q", elf, 32)
    entry, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", elf, table + index * entry)
        if kind == PT_NOTE:
            yield offset, size


def symbols(elf):
    """Yield the symbols of an ELF file, as (name, whether the file defines the symbol)."""
    places = list(sections(elf, None))
    for offset, size, link in sections(elf, SHT_SYMTAB):
        names = places[link][0]
        for at in range(offset, offset + size, 24):
            name, _, _, section = struct.unpack_from("<IBBH", elf, at)
            yield elf[names + name:elf.index(b"\0", names + name)], section != 0


def build_id(elf):
    """Return the build-id of an ELF file; None if it has none."""
    for at, size in notes(elf):
        end = at + size
        while at + 12 <= end:
            name, length, kind = struct.unpack_from("<III", elf, at)
            value = at + 12 + (name + 3 & ~3)
            if kind == GNU_BUILD_ID and elf[at + 12:at + 12 + name] == b"GNU\0":
                return elf[value:value + length]
            at = value + (length + 3 & ~3)
    return None


def kernel_of(tree):
    """Return the kernel image of a tree as an ELF file."""
    if (tree / "vmlinux").exists():
        return (tree / "vmlinux").read_bytes()
    return unpacked((tree / "arch/x86/boot/bzImage").read_bytes())


def misconfig_call(module):
    """Return the symbol by which kvm_intel calls its handler; None if it has no such call."""
    listing = subprocess.run(["objdump", "-d", "-r", "--no-show-raw-insn", module],
                             stdout=subprocess.PIPE, text=True, check=True).stdout
    symbols = rf"({MISCONFIG}(?:\.part\.\d+)?)"
    called = set()
    function = None
    for line in listing.splitlines():
        begin = re.match(r"[0-9a-f]+ <(.*)>:", line)
        function = begin[1] if begin else function
        call = re.search(rf"\t(?:call|j\w+)\s+.*<{symbols}>|R_X86_64_PLT32\s+{symbols}-0x4", line)
        if call and not function.startswith(MISCONFIG):
            called.add(call[1] or call[2])
    # The handler itself leads to its part.  Of several parts, livepatch could replace one alone.
    parts = called - {MISCONFIG}
    return None if len(parts) > 1 else next(iter(parts or called), None)


def check(tree, module):
    """Look up what a module imports; return a line for each symbol that is missing."""
    there = {name.lower().encode(): Counter(symbol for symbol, defined
                                            in symbols((tree / place).read_bytes()) if defined)
             for name, place in MODULES.items()}
    imports = [match.groups() for name, _ in symbols(module.read_bytes())
               if (match := IMPORT.fullmatch(name))]
    if not imports:
        raise Unreadable(f"{module} imports nothing")
    # Livepatch looks the functions that it replaces up by their names too.
    imports += [(b"kvm_intel", name) for name in REPLACED]
    return [f"{module.name} needs one {symbol.decode()}, and {place.decode()} of {tree} has "
            f"{there[place][symbol]}: the module is not for this kernel"
            for place, symbol in imports if there[place][symbol] != 1]


def build_ids(tree):
    """Return the build-ids of vmlinux, kvm and kvm_intel of a build tree, by name."""
    return {"VMLINUX": build_id(kernel_of(tree)),
            **{name: build_id((tree / place).read_bytes()) for name, place in MODULES.items()}}


def header(tree):
    """Print the header for a build tree."""
    print("/* SPDX-License-Identifier: GPL-2.0 */")
    print("/* Generated: the kernel and the KVM that the module is built for. */")
    for name, found in build_ids(tree).items():
        if not found:
            raise Unreadable(f"{name.lower()} of {tree} has no build-id")
        print(f"#define VMX_VPID_TARGET_{name}\t{{ {', '.join(f'0x{b:02x}' for b in found)} }}")
    call = misconfig_call(tree / MODULES["KVM_INTEL"])
    print(f'#define VMX_VPID_EPT_MISCONFIG\t"{call or MISCONFIG}"')
    print(f"#define VMX_VPID_EPT_MISCONFIG_CALLED\t{int(bool(call))}")


if __name__ == "__main__":
    try:
        if len(sys.argv) > 2:
            sys.exit("\n".join(check(*map(Path, sys.argv[1:]))) or None)
        header(Path(sys.argv[1]))
    except (OSError, IndexError, Unreadable, struct.error) as error:
        sys.exit(f"{Path(__file__).name}: error: {error}: build the kernel and its modules first, "
                 "or see 'make check-kernel'")
