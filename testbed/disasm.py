# SPDX-License-Identifier: GPL-2.0
"""Read a built module: its symbols and relocations, the returns and jumps of its functions."""

import os
import re
import subprocess
from collections import namedtuple

from common import Failure

Symbol = namedtuple("Symbol", "name readable kind section start size")
Insn = namedtuple("Insn", "address text reloc")

RETURN_THUNK = "__x86_return_thunk"
# The functions of kvm/ops.rs that livepatch and KVM's static calls lead to.
ENTRY = re.compile(r"<\w+::kvm::ops::Entry<(?:\w+::)*(\w+)>>::(\w+)")
JUMP = re.compile(r"(?:(?:notrack|bnd|cs|ds|es|ss|data16|rex\S*)\s+)*(?:j\w+|loop\w*)\s+(.*)")
RELOC = re.compile(r"\s+[0-9a-f]+:\s+R_X86_64_(\w+)\s+(\S+?)([-+]0x[0-9a-f]+)?")


def tool(name):
    """Return the path of a tool of the toolchain that LLVM= names, in any of kbuild's forms."""
    llvm = os.environ.get("LLVM")
    if llvm == "":
        return name.removeprefix("llvm-")
    if not llvm:
        raise Failure("the toolchain is chosen by the Makefile: run 'make test'")
    if llvm.endswith("/"):
        return llvm + name
    return name + llvm if llvm.startswith("-") else name


def run(command, **options):
    """Return the output of a program, which has to succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                          errors="replace", check=False, **options)
    if done.returncode:
        raise Failure(f"{command[0]} failed\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


class Module:
    """A module file, read by the LLVM tools."""

    def __init__(self, path):
        """Read the symbols and the code of `path`."""
        self.path = path
        self.sections = self._sections()
        self.symbols = self._symbols()
        self.code = self._code()

    def _readelf(self, *options):
        """Return the lines that llvm-readelf prints."""
        return run([tool("llvm-readelf"), "--wide", *options, self.path]).splitlines()

    def _sections(self):
        """Return the section names by number; symbols name a section by its number."""
        rows = (re.match(r"\s*\[\s*(\d+)\] (\S+)", line) for line in self._readelf("-S"))
        return {row[1]: row[2] for row in rows if row}

    def _symbols(self):
        """Return the defined symbols, each with its mangled and its demangled name."""
        found = []
        for plain, readable in zip(self._readelf("-s"), self._readelf("-s", "--demangle")):
            row, name = plain.split(None, 7), readable.split(None, 7)
            if len(row) == 8 and row[6] in self.sections:
                found.append(Symbol(row[7], name[7], row[3], self.sections[row[6]],
                                    int(row[1], 16), int(row[2], 0)))
        return found

    def _code(self):
        """Return the instructions of each section, each with its relocation."""
        code, lines = {}, None
        for line in run([tool("llvm-objdump"), "-d", "-r", "--no-show-raw-insn",
                         self.path]).splitlines():
            section = re.match(r"Disassembly of section (\S+):", line)
            insn = re.match(r"\s*([0-9a-f]+):\s+([a-z].*)", line)
            reloc = RELOC.fullmatch(line)
            if section:
                lines = code.setdefault(section[1], [])
            elif reloc:
                lines[-1] = lines[-1]._replace(
                    reloc=(reloc[1], reloc[2], int(reloc[3] or "0", 16)))
            elif insn:
                lines.append(Insn(int(insn[1], 16), re.sub(r"\s+", " ", insn[2]), None))
        return code

    def functions(self):
        """Return the names of the defined functions."""
        return {symbol.name for symbol in self.symbols if symbol.kind == "FUNC"}

    def entries(self):
        """Return the entries as (backend, name of the operation, symbol)."""
        found = []
        for symbol in self.symbols:
            match = ENTRY.fullmatch(symbol.readable)
            if match and symbol.kind == "FUNC":
                found.append((match[1], match[2], symbol))
        return found

    def parts(self, function):
        """Return the symbol of a function and the symbols of its cold parts."""
        cold = re.compile(re.escape(function.name) + r"\.cold(\.\d+)?")
        return [function] + [s for s in self.symbols if s.kind == "FUNC" and cold.fullmatch(s.name)]

    def insns(self, part):
        """Return the instructions of a part of a function."""
        return [insn for insn in self.code.get(part.section, [])
                if part.start <= insn.address < part.start + part.size]

    @staticmethod
    def _stays(function, insn, operand):
        """Return whether the target of a jump is in the function."""
        if operand.startswith("*"):
            return False
        if not insn.reloc:
            section, target = function.section, int(operand.split()[0], 16)
        else:
            # A relative jump counts from its end, which is the end of the relocated field.
            section, target = insn.reloc[1], insn.reloc[2] + 4
            if insn.reloc[1] == function.name:
                section, target = function.section, function.start + target
        return (section == function.section
                and function.start <= target < function.start + function.size)

    def leaves(self, function):
        """Return the number of a function's returns, and the jumps that leave the function.

        A jump to a cold part leaves the function too: livepatch looks for return addresses in the
        range of the function's own symbol.
        """
        returns, jumps = 0, []
        for insn in self.insns(function):
            jump = JUMP.fullmatch(insn.text)
            if re.match(r"ret[lq]?\b", insn.text):
                returns += 1
            elif jump and insn.reloc and insn.reloc[1:] == (RETURN_THUNK, -4):
                returns += 1
            elif jump and not self._stays(function, insn, jump[1]):
                jumps.append(insn)
        return returns, jumps

    def livepatch_relocs(self, target):
        """Return the relocations that livepatch applies when the module `target` is loaded."""
        found, inside = [], False
        for line in self._readelf("-r"):
            if line.startswith("Relocation section"):
                inside = f"'.klp.rela.{target}." in line
            row = line.split()
            if inside and len(row) > 4 and row[2].startswith("R_X86_64_"):
                found.append((row[2], row[4]))
        return found

    def modinfo(self):
        """Return the module information, as a list of "key=value"."""
        rows = (re.match(r"\[\s*[0-9a-f]+\] (.*)", line)
                for line in self._readelf("-p", ".modinfo"))
        return [row[1] for row in rows if row]
