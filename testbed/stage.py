#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Collect the files that the selftests need in the guest, and no others: the CD there is slow."""

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

from common import Failure, TOP, build_tree, main

SELFTESTS = TOP / "selftests"
BUILT = TOP / "build" / "selftests"


def upstream():
    """Return the names of upstream's tests that the selftests run."""
    text = (SELFTESTS / "upstream.list").read_text()
    return re.findall(r"^([^#\s]+)", text, re.MULTILINE)


def helpers():
    """Return the kernel's shell helpers for KTAP, from the tree in use."""
    for source in (os.environ.get("KSRC"), build_tree() / "source"):
        path = source and (TOP / source) / "tools/testing/selftests/kselftest/ktap_helpers.sh"
        if path and path.exists():
            return path
    raise Failure("ktap_helpers.sh not found in the kernel source: name the tree with KSRC=")


def copy_program(source, target):
    """Copy a program without its symbols, which are most of the file."""
    if not source.exists():
        raise Failure(f"{source.relative_to(TOP)} is not built: run 'make selftests'")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["strip", "-o", target, source], check=True)


def stage(target, variant="test"):
    """Fill a folder with the tests, modules, guests and upstream's tests; return the folder."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in [*SELFTESTS.glob("*.sh"), SELFTESTS / "upstream.list", helpers()]:
        shutil.copy(path, target)
    for source in SELFTESTS.glob("modules/*.c"):
        name = source.relative_to(TOP).with_suffix(".ko")
        shutil.copy(TOP / "build" / variant / name, target)
    # A guest is one file, or a folder of them; a program is one file.
    for source in [*SELFTESTS.glob("guests/*"), *SELFTESTS.glob("*.c")]:
        name = source.relative_to(SELFTESTS).with_suffix("")
        copy_program(BUILT / name, target / name)
    for name in upstream():
        copy_program(BUILT / "kvm" / name, target / "kvm" / name)
    return target


def run():
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the target; its contents are removed first")
    parser.add_argument("--debug", action="store_true", help="the modules of the debug kernel")
    args = parser.parse_args()
    print(stage(args.folder, "debug" if args.debug else "test"))
    return 0


if __name__ == "__main__":
    main(run)
