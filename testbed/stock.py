# SPDX-License-Identifier: GPL-2.0
"""The stock kernels of Debian 13: which there are, and a build tree for each.

A build tree is made once for each kernel, in the cache: Debian's configuration, the metadata of
Rust, kernel image and modules as the packages have them.  KDIR= and testbed/vm take such a tree like
one that was built here.  All of that happens in a chroot, or on the machine itself if that runs
Debian 13 and has no rustc-web, which conflicts with the rustc of Debian's kernels.
"""

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

from common import Failure, TOP, cache_dir, config_of, locked, logged, step
from debian import machine, system

# Debian's kernel tests its ciphers at boot, which takes half a minute in Bochs.
ARGUMENTS = "cryptomgr.notests=1"
SUITE = "trixie"
# The file in a build tree that says that the tree is made.
STAMP = ".vmx_vpid-complete"
# Series that the module is built for, the newest first, and the flavours of Debian's kernels.
SERIES = ("7.3", "7.2")
RELEASE = re.compile(r"((\d+\.\d+)\.\d+)(\+deb13)-((?:cloud-|rt-)?amd64)")
SHORT = re.compile(r"(\d+\.\d+)(?:-((?:cloud-|rt-)?amd64))?")
# Compilers, and what kbuild needs besides them.  libxxhash is for "objtool klp post-link".
PACKAGES = ("gcc-14 make bc flex bison libelf-dev libssl-dev libxxhash-dev kmod cpio xz-utils zstd "
            "python3 perl rustc rust-src bindgen libclang-dev rsync openssl").split()
TOOLS = {"RUSTC": "/usr/bin/rustc", "RUSTDOC": "/usr/bin/rustdoc", "RUSTFMT": "/usr/bin/rustfmt",
         "HOSTRUSTC": "/usr/bin/rustc", "BINDGEN": "/usr/bin/bindgen",
         # bindgen would take the newest one, and bindgen 0.71 cannot use that of clang-22.
         "LIBCLANG_PATH": "/usr/lib/llvm-19/lib"}
# Values of a configuration that may differ: the full names of tools.
TEXTS = ("CONFIG_CC_VERSION_TEXT", "CONFIG_PAHOLE_VERSION", "CONFIG_LD_VERSION", "CONFIG_AS_VERSION")
# Where a build has the modules that the testbed loads.
KVM = {"virt/lib/irqbypass.ko": "kernel/virt/lib/irqbypass.ko",
       "arch/x86/kvm/kvm.ko": "kernel/arch/x86/kvm/kvm.ko",
       "arch/x86/kvm/kvm-intel.ko": "kernel/arch/x86/kvm/kvm-intel.ko"}


class Kernel:
    """A stock kernel: its names, and where its build tree is."""

    def __init__(self, release):
        """`release` is what `uname -r` prints."""
        match = RELEASE.fullmatch(release)
        if not match or match[2] not in SERIES:
            raise Failure(f"{release} is no stock kernel that the module is for: Debian 13 has "
                          f"{' and '.join(SERIES)} in its backports; name one with KERNEL=, or "
                          "build for a kernel of your own with 'make modules KDIR='")
        self.release = release
        self.version, self.series, suffix, flavour = match.groups()
        self.localversion = f"{suffix}-{flavour}"
        self.tree = cache_dir() / "stock" / release
        self.variant = f"stock/{release}"

    def make(self, config):
        """Return the words for make that name the kernel's own compilers."""
        compiler = config["CONFIG_CC_VERSION_TEXT"].strip('"').split()[0]
        tools = [f"{name}={path}" for name, path in TOOLS.items()]
        return ["LLVM=", "LLVM_BIN=", f"CC={compiler}", "CROSS_COMPILE=x86_64-linux-gnu-", *tools]


def known(where):
    """Return the stock kernels that the system has or can install, the oldest first."""
    names = where.output("apt-cache", "search", "--names-only", r"^linux-headers-[0-9.]+\+deb13-")
    found = {match[0] for match in RELEASE.finditer(names)}
    found |= {path.name for path in where.path("/lib/modules").glob("*")
              if RELEASE.fullmatch(path.name)}
    return sorted(found, key=lambda name: [int(x) for x in re.findall(r"\d+", name)[:3]])


def kernel_named(name, where):
    """Return the kernel that a user's word means."""
    if not name:
        name = os.uname().release
        if where.root or not RELEASE.fullmatch(name):
            step(f"{name}, which runs here, is no stock kernel of Debian 13: taking {SERIES[0]}-amd64")
            name = SERIES[0]
    if RELEASE.fullmatch(name):
        return Kernel(name)
    match = SHORT.fullmatch(name)
    if not match:
        raise Failure(f"{name} names no kernel: give a release such as 7.3.4+deb13-amd64, or series "
                      "and flavour such as 7.3-cloud-amd64")
    wanted = [release for release in known(where)
              if RELEASE.fullmatch(release).group(2, 4) == (match[1], match[2] or "amd64")]
    if not wanted:
        raise Failure(f"there is no stock kernel {name}: apt-cache search linux-headers lists them")
    return Kernel(wanted[-1])


def stamps():
    """Return the stamps of the build trees that are made, none if this user may not use them."""
    if os.geteuid() and not machine(SUITE):
        return []
    return sorted((cache_dir() / "stock").glob(f"*/{STAMP}"))


def newest():
    """Return the kernel that the tests run on in full."""
    return kernel_named(f"{SERIES[0]}-amd64", system(SUITE))


def run_in_system(name, words):
    """Run a program where the module for a kernel is built, with the kernel's tools.

    Return its exit status.
    """
    kernel, where = ready(name), system(SUITE)
    tools = kernel.make(config_of(kernel.tree / ".config"))
    command = where.command(["env", f"KDIR={kernel.tree}", *tools, *words])
    return subprocess.run(command, cwd=TOP, check=False).returncode


def ready(name):
    """Return the kernel that a user's word means, whose build tree is made."""
    kernel = kernel_named(name, system(SUITE))
    if not (kernel.tree / STAMP).exists():
        raise Failure(f"no build tree for {kernel.release}: run 'make stock"
                      f"{f' KERNEL={name}' if name else ''}'")
    return kernel


def version_of(package, where):
    """Return the version of a package that is installed."""
    return where.output("dpkg-query", "-W", "-f", "${Version}", package)


def fetched(kernel, where, version):
    """Return the folder of the kernel's modules and its image: of a version, installed or fetched."""
    image = where.path(f"/boot/vmlinuz-{kernel.release}")
    packages = [f"linux-{part}-{kernel.release}={version}" for part in ("binary", "modules")]
    if image.exists() and not where.lacks(packages):
        return where.path(f"/lib/modules/{kernel.release}"), image
    folder = kernel.tree / "packages"
    folder.mkdir(parents=True)
    logged(where.command(["sh", "-c", 'cd "$0" && apt-get download -q "$@"', folder, *packages]),
           kernel.tree / "fetch.log", what="apt-get download")
    for package in sorted(folder.glob("*.deb")):
        subprocess.run(where.command(["dpkg-deb", "-x", package, folder]), check=True)
        package.unlink()
    modules = folder / "usr/lib/modules" / kernel.release
    return modules, modules / "vmlinuz"


def unpack_source(kernel, where, version):
    """Return the kernel's source tree; the test kernel uses the same one if it has that version."""
    tree = cache_dir() / "src" / f"linux-{version}"
    with locked(cache_dir() / "source.lock"):
        if not tree.is_dir():
            step(f"unpacking the kernel source ({version})")
            part = Path(f"{tree}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            archive = where.path(f"/usr/src/linux-source-{kernel.series}.tar.xz")
            subprocess.run(["tar", "-xJf", archive, "-C", part, "--strip-components=1"], check=True)
            part.rename(tree)
    return tree


def place_binaries(kernel, where, version):
    """Put kernel image and KVM's modules where a build would have put them, unpacked, signed."""
    modules, image = fetched(kernel, where, version)
    (kernel.tree / "arch/x86/boot").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, kernel.tree / "arch/x86/boot/bzImage")
    for place, name in KVM.items():
        packed = modules / f"{name}.xz"
        data = (lzma.decompress(packed.read_bytes()) if packed.exists()
                else (modules / name).read_bytes())
        (kernel.tree / place).parent.mkdir(parents=True, exist_ok=True)
        (kernel.tree / place).write_bytes(data)
    shutil.rmtree(kernel.tree / "packages", ignore_errors=True)


def made_from(version, where):
    """Return what a build tree depends on: the version of the kernel's packages, and the compiler."""
    return f"{version}\n{where.output(TOOLS['RUSTC'], '--version')}"


def prepare(kernel, where):
    """Bring the build tree of a kernel into being, unless it is there and up to date."""
    where.install(PACKAGES)
    headers = f"linux-headers-{kernel.release}"
    # Without the lock: the package of headers may have DKMS build this very module.
    where.install([headers], "-t", f"{SUITE}-backports")
    version = version_of(headers, where)
    stamp = kernel.tree / STAMP
    with locked(cache_dir() / f"stock-{kernel.release}.lock"):
        if stamp.exists() and stamp.read_text() == made_from(version, where):
            return
        # A package of headers may be newer than the source that was installed with the one before.
        where.install([f"linux-source-{kernel.series}={version}"], "-t", f"{SUITE}-backports")
        if kernel.tree.exists():
            shutil.rmtree(kernel.tree)
        kernel.tree.mkdir(parents=True)
        make_tree(kernel, where, version)
        stamp.write_text(made_from(version, where))


def make_tree(kernel, where, version):
    """Make the build tree of a kernel, of a version of its packages."""
    source = unpack_source(kernel, where, version)
    headers = where.path(f"/usr/src/linux-headers-{kernel.release}")
    shutil.copyfile(headers / ".config", kernel.tree / ".config")
    make = ["make", "-C", source, f"O={kernel.tree}", f"LOCALVERSION={kernel.localversion}",
            *kernel.make(config_of(headers / ".config"))]
    logged(where.command([*make, "olddefconfig"]), kernel.tree / "configure.log", what="olddefconfig")
    compare_configurations(headers / ".config", kernel.tree / ".config")
    step(f"preparing a build tree for {kernel.release} (once, 5 minutes on 2 cores)")
    logged(where.command([*make, f"-j{os.cpu_count()}", "modules_prepare"]),
           kernel.tree / "build.log", what="modules_prepare")
    logged(where.command([*make, "headers"]), kernel.tree / "headers.log", what="make headers")
    release = (kernel.tree / "include/config/kernel.release").read_text().strip()
    if release != kernel.release:
        raise Failure(f"{kernel.tree} is for {release} and not for {kernel.release}")
    shutil.copyfile(headers / "Module.symvers", kernel.tree / "Module.symvers")
    place_binaries(kernel, where, version)


def compare_configurations(wanted, made):
    """Refuse a configuration that is not the kernel's own: structures would differ."""
    old, new = config_of(wanted), config_of(made)
    # A point release of a tool changes its text and moves no field.
    differing = sorted(name for name in old.keys() | new.keys()
                       if old.get(name) != new.get(name) and name not in TEXTS)
    if differing:
        raise Failure(f"{made} differs from the kernel's own configuration in "
                      f"{', '.join(differing[:5])}: is the compiler the kernel's?")


def build(kernel, where):
    """Build the module; return its path."""
    prepare(kernel, where)
    # The Makefile, which may have called this, exported its own toolchain and options.
    fresh = ["env", *(f"-u{name}" for name in ("BINDGEN_EXTRA_CLANG_ARGS", "LIBCLANG_PATH",
                                                "MAKEFLAGS", "MAKELEVEL", "STOCK", "DEBUG",
                                                "KERNEL"))]
    words = [*fresh, "make", "-s", f"-j{os.cpu_count()}", "modules", f"KDIR={kernel.tree}",
             f"O=build/stock/{kernel.release}", "STRIP_DEBUG=1",
             *kernel.make(config_of(kernel.tree / ".config"))]
    step(f"building vmx_vpid.ko for {kernel.release}")
    log = TOP / "build/stock" / f"{kernel.release}.log"
    logged(where.command(words), log, what="the build of the module")
    return TOP / "build/stock" / kernel.release / "vmx_vpid.ko"
