# SPDX-License-Identifier: GPL-2.0
"""Check the layers of the crate: the imports that each file of vmx_vpid/ may have.

The rules are those of Documentation/overview.rst, "Layers":

R1  A file imports its own unit, and units below it in ORDER.
R2  Only model/ and harness/ import model/ and harness/.
R3  A product folder is part of vmx_vpid.ko: only tests and mocks in it are built for KUnit alone.
R4  The files of a unit import each other without a circle; CIRCLES lists those still to be cut.
R5  Each rust/X.c is the C part of kvm/X.rs, debugfs/X.rs or debugfs.rs.

A unit is a file of vmx_vpid/ with the folder of the same name.  Tests and mocks may import units
above their own, so R1, R2 and R4 skip tests and mocks.
"""

import re

# From the lowest row up.  Units of one row do not import each other.
ORDER = (("x86",), ("vmx",), ("paging",), ("stats", "mmu", "phase"), ("vpid",), ("invvpid",),
         ("ept",), ("flush",), ("asid",), ("exits",), ("backend",), ("bindings",), ("kvm",),
         ("debugfs",))
RANK = {unit: rank for rank, row in enumerate(ORDER) for unit in row}
# The highest unit that model/ and harness/ may import; the units that asid/ may import.
MODEL_TOP, ASID = RANK["backend"], ("x86",)
APART = ("model", "harness")
CRATE_ROOTS = ("vmx_vpid_main", "vmx_vpid_kunit")
# C files without a Rust file of the same name, and the Rust file that each belongs to.
PAIRED = {"klp": "kvm/attach.rs", "helpers": "bindings.rs", "kvm_target": "kvm.rs"}
# The circles of model/ still to be cut: sets of files that import each other.  The list may only
# shrink.
CIRCLES = (
    ("model/cpu/access.rs", "model/cpu/gpa.rs"),
    ("model/cpu/context.rs", "model/cpu/cost.rs", "model/guest/control_regs.rs",
     "model/kvm/generations.rs", "model/kvm/vcpu.rs", "model/machine.rs"),
    ("model/ept/build.rs", "model/ept/flush_needed.rs", "model/ept/transaction.rs"),
    ("model/guest/edit.rs", "model/guest/memory.rs"),
    ("model/host_mm/machine.rs", "model/host_mm/shootdown.rs"),
    ("model/shadow_mmu/fetch.rs", "model/shadow_mmu/roots.rs"),
    ("model/shadow_run/machine.rs", "model/shadow_run/random.rs"),
)

TEST_FILE = re.compile(r"(^|/)(\w*tests|\w*mock\w*)\.rs$")
USE = re.compile(r"(?m)^[ \t]*(?:pub(?:\([^)]*\))? )?use ((?:crate|super|self)\b[^;]*);")
INLINE = re.compile(r"(?<![\w:$])(crate|super)((?:::\w+)+)")
CHILD = re.compile(r"\bmod (\w+);")
KUNIT_MOD = re.compile(r"#\[cfg\(CONFIG_VMX_VPID_KUNIT_TEST\)\]\s*(?:pub(?:\([^)]*\))? )?mod (\w+);")


def flat(tree):
    """Return the paths of a use tree, each a tuple of names."""
    head, brace, body = tree.partition("{")
    names = tuple(name for name in re.split(r"\s*::\s*|\s+as\s+.*", head.strip()) if name)
    if not brace:
        return [names]
    parts, depth, part = [], 0, ""
    for char in body.rstrip().removesuffix("}"):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and not depth:
            parts.append(part)
            part = ""
        else:
            part += char
    return [names + path for part in [*parts, part] if part.strip() for path in flat(part)]


class Crate:
    """The files of vmx_vpid/ by module path, and the imports of each file."""

    def __init__(self, sources):
        """`sources` has the code of each file, without comments, literals and test modules."""
        self.files = {self.module(name): name for name in sources}
        self.code = sources
        self.imports = {name: self.imported(name) for name in sources}

    @staticmethod
    def module(name):
        """Return the module path of a file; the path of a crate root is its name."""
        stem = name.removesuffix(".rs")
        return (stem,) if stem in CRATE_ROOTS else tuple(stem.split("/"))

    def imported(self, name):
        """Return the files that a file imports."""
        module, code, found = self.module(name), self.code[name], set()
        trees = [path for use in USE.finditer(code) for path in flat(use[1])]
        rest_of = USE.sub("", code)
        inline = [(found[1], *found[2].split("::")[1:]) for found in INLINE.finditer(rest_of)]
        # A file may name a module of its own without a prefix.
        inline += [("self", child) for child in CHILD.findall(rest_of)
                   if re.search(rf"(?<![\w:$]){child}::", rest_of)]
        for path in trees + inline:
            base = () if path[0] == "crate" else module
            rest = path[1:]
            if path[0] == "super":
                base = module[:-1]
            while rest and rest[0] == "super":
                base, rest = base[:-1], rest[1:]
            whole = base + tuple(part for part in rest if part != "self")
            for length in range(len(whole), 0, -1):
                if whole[:length] in self.files:
                    found.add(self.files[whole[:length]])
                    break
        return found - {name}

    def circles(self):
        """Return the sets of files that reach each other by imports."""
        reach = {}
        for start in self.imports:
            seen, todo = set(), [start]
            while todo:
                for name in self.imports[todo.pop()]:
                    if name in self.imports and name not in seen:
                        seen.add(name)
                        todo.append(name)
            reach[start] = seen
        found = {frozenset(other for other in reach[name] if name in reach[other])
                 for name in reach if name in reach[name]}
        return sorted(found, key=sorted)


def unit_of(name):
    """Return the unit of a file."""
    return name.partition("/")[0].removesuffix(".rs")


def allowed(importer, imported):
    """Return whether a unit may import another; a unit that is in no row may import none."""
    if importer == imported:
        return True
    if importer in APART:
        return (imported == "model" if imported in APART else
                RANK.get(imported, MODEL_TOP + 1) <= MODEL_TOP)
    if importer == "asid":
        return imported in ASID
    return RANK.get(imported, len(ORDER)) < RANK.get(importer, -1)


def complaints(sources, texts, c_files):
    """Return a line for each import, file or circle that breaks a rule.

    `sources` has the code of each Rust file below vmx_vpid/, without comments, literals and test
    modules; `texts` the files as they are; `c_files` the names of the files of rust/.
    """
    product = {name: code for name, code in sources.items()
               if not TEST_FILE.search(name) and unit_of(name) not in CRATE_ROOTS}
    crate, lines = Crate(product), []
    for name in sorted(product):
        unit = unit_of(name)
        if unit not in RANK and unit not in APART:
            lines.append(f"R1 {name}: the unit {unit} has no place in ORDER")
            continue
        lines += [f"{'R2' if unit_of(other) in APART else 'R1'} {name}: imports {other}"
                  for other in sorted(crate.imports[name]) if not allowed(unit, unit_of(other))]
    for name, text in sorted(texts.items()):
        if unit_of(name) not in (*APART, *CRATE_ROOTS):
            lines += [f"R3 {name}: {mod} is built for KUnit alone and is no test or mock"
                      for mod in KUNIT_MOD.findall(text) if not TEST_FILE.search(f"{mod}.rs")]
    known = {frozenset(circle) for circle in CIRCLES}
    found = set(crate.circles())
    lines += [f"R4 a circle: {', '.join(sorted(circle))}"
              for circle in sorted(found - known, key=sorted)]
    lines += [f"R4 not a circle any more, remove it from CIRCLES: {', '.join(sorted(circle))}"
              for circle in sorted(known - found, key=sorted)]
    for name in sorted(c_files):
        stem = name.removesuffix(".c")
        pair = [PAIRED.get(stem), f"kvm/{stem}.rs", f"debugfs/{stem}.rs", f"{stem}.rs"]
        if name.endswith(".c") and not any(file in sources for file in pair if file):
            lines.append(f"R5 rust/{name}: there is no kvm/{stem}.rs")
    return lines
