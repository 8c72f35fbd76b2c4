# SPDX-License-Identifier: GPL-2.0
"""A Debian system to build in: this machine, if it runs the suite wanted, or a chroot of the suite.

Rust's symbol names carry a hash of the compiler's version, so a module for a stock kernel has to be
compiled by the very rustc that built the kernel.  A chroot has the compilers of its suite on any
machine.  It is made once per machine, in the cache, from the mirror that this machine uses.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from common import Failure, TOP, cache_dir, locked, logged, step

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The settings of apt that are about the network of this machine.
APT_SETTINGS = re.compile(r"Acquire::(?:http|https|Check-|ForceIPv|Retries)\S* \"[^\"]+\";")
# dpkg sets this variable for the scripts of a package.
CONFIGURING = "DPKG_MAINTSCRIPT_PACKAGE"
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
CERTIFICATES = Path("usr/local/share/ca-certificates")
# Mounts, in a mount namespace that ends with the command, what the command needs.
ENTER = """
root=$1
shift
while [ "$1" != -- ]; do
	mkdir -p "$root$1" && mount --rbind "$1" "$root$1" || exit
	shift
done
shift
exec chroot "$root" "$@"
"""


def os_release():
    """Return the values of /etc/os-release."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {key: value.strip('"') for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M)}


def mirror(archive="debian"):
    """Return the address of the mirror that this machine uses for an archive of Debian."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))]
    text = "\n".join(path.read_text(errors="replace") for path in files if path.is_file())
    found = re.findall(rf"^(?:deb +(?:\[[^]]*\] +)?|URIs: *)(\S+/{archive})/?(?= |$)", text, re.M)
    if found:
        return found[0]
    if archive == "debian-security":
        return f"{mirror()}-security"
    raise Failure("no Debian mirror found under /etc/apt: add one")


def output_of(command):
    """Return the output of a program that has to succeed."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))} failed\n{done.stderr}".rstrip())
    return done.stdout


class System:
    """A system with a Debian suite: programs run in it, and apt installs what they need."""

    def __init__(self, suite, root=None, shared=True):
        """`root` is the folder of a chroot, None for the machine itself.

        A chroot that is not `shared` has neither this checkout nor this cache.
        """
        self.suite = suite
        self.root = root
        self.shared = shared

    def command(self, words, folder=TOP):
        """Return a command line that runs `words` in a folder of the system."""
        words = [str(word) for word in words]
        if not self.root:
            return words
        if os.geteuid():
            raise Failure(f"the chroot of Debian {self.suite} needs root: run this as root")
        binds = ["/proc", "/sys", "/dev"]
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
                       "DEBIAN_FRONTEND=noninteractive"]
        environment += [f"{name}={os.environ[name]}" for name in PROXIES if name in os.environ]
        if self.shared:
            cache = cache_dir().resolve()
            binds += [str(TOP), str(cache)]
            environment.append(f"VMX_VPID_CACHE={cache}")
        return ["unshare", "--mount", "--", "sh", "-c", ENTER, "sh", str(self.root), *binds, "--",
                "/usr/bin/env", "-i", "-C", str(folder), *environment, *words]

    def output(self, *words):
        """Return the output of a program in the system."""
        return output_of(self.command(words))

    def path(self, name):
        """Return where a file of the system is, seen from this machine."""
        return Path(self.root or "/") / name.lstrip("/")

    def lacks(self, packages):
        """Return the packages that are not installed; NAME=VERSION wants that version."""
        names = [name.partition("=")[0] for name in packages]
        done = subprocess.run(self.command(["dpkg-query", "-W", "-f", "${db:Status-Status} "
                                            "${Package} ${Package}=${Version}\n", *names]),
                              capture_output=True, text=True, check=False)
        good = {"installed", "triggers-pending", "triggers-awaited"}
        # While DKMS builds for a package that is being configured, its files are there.
        good |= {"unpacked", "half-configured"} if CONFIGURING in os.environ else set()
        rows = [line.split() for line in done.stdout.splitlines()]
        there = {word for row in rows if row[0] in good for word in row[1:]}
        return [name for name in packages if name not in there]

    def install(self, packages, *options):
        """Install packages that are missing."""
        missing = self.lacks(packages)
        if not missing:
            return
        # dpkg, which configures a package and so has DKMS build, holds its own lock.
        if os.geteuid() or CONFIGURING in os.environ:
            raise Failure(f"packages missing: {' '.join(missing)}: install them as root, with "
                          f"apt install {' '.join([*options, *missing])}")
        step(f"installing {len(missing)} packages: {' '.join(missing[:6])}"
             f"{' ...' * (len(missing) > 6)}")
        log = cache_dir() / "logs" / f"apt-{self.suite}.log"
        with locked(cache_dir() / "apt.lock"):
            if self.root:
                shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
                # An interrupted run may have left packages half configured.
                logged(self.command(["dpkg", "--configure", "-a"]), log, what="dpkg --configure -a")
            logged(self.command(["apt-get", "update", "-q"]), log, what="apt-get update")
            logged(self.command(["apt-get", "install", "-q", "-y", "--no-install-recommends",
                                 "--no-remove", "-o", "DPkg::Lock::Timeout=300",
                                 *options, *missing]), log, what="apt-get install")


def write_sources(root, suites):
    """Tell apt in a chroot where its packages are, and how this machine reaches them."""
    lines = [f"deb {mirror('debian-security' if name.endswith('-security') else 'debian')} {name} "
             "main\n" for name in suites]
    (root / "etc/apt/sources.list").write_text("".join(lines))
    settings = APT_SETTINGS.findall(output_of(["apt-config", "dump"]))
    (root / "etc/apt/apt.conf.d/99vmx_vpid").write_text("".join(f"{x}\n" for x in settings))
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    # No package may start a service in the chroot.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (root / CERTIFICATES).mkdir(parents=True, exist_ok=True)
    for path in ("/" / CERTIFICATES).glob("*.crt"):
        shutil.copy(path, root / CERTIFICATES)


def bootstrap(where, suites, logs):
    """Make a chroot of the essential packages, whose apt knows some suites; `logs` is a folder."""
    if os.geteuid():
        raise Failure(f"to make a chroot of Debian {where.suite} needs root: run this as root")
    System("host").install(["debootstrap"])
    if where.root.exists():
        shutil.rmtree(where.root)
    where.root.parent.mkdir(parents=True, exist_ok=True)
    secure = mirror().startswith("https:")
    # debootstrap mounts proc and sys in the chroot.
    logged(["unshare", "--mount", "--", "debootstrap", "--variant=minbase", f"--keyring={KEYRING}",
            *(["--include=ca-certificates"] if secure else []), where.suite, where.root, mirror()],
           logs / f"debootstrap-{where.suite}.log", what="debootstrap")
    write_sources(where.root, suites)
    log = logs / f"apt-{where.suite}.log"
    if secure:
        logged(where.command(["update-ca-certificates"], "/"), log, what="update-ca-certificates")
    logged(where.command(["apt-get", "update", "-q"], "/"), log, what="apt-get update")


def chroot(suite):
    """The chroot of a suite, made if it is not there."""
    root = cache_dir() / "chroot" / suite
    with locked(cache_dir() / f"chroot-{suite}.lock"):
        if (root / ".vmx_vpid-complete").exists():
            return System(suite, root)
        step(f"making a chroot of Debian {suite} (once per machine, a minute)")
        part = root.with_suffix(".part")
        bootstrap(System(suite, part), [suite, f"{suite}-updates", f"{suite}-backports"],
                  cache_dir() / "logs")
        (part / ".vmx_vpid-complete").touch()
        shutil.rmtree(root, ignore_errors=True)
        part.rename(root)
    return System(suite, root)


def machine(suite):
    """The machine itself if it runs the suite, None otherwise."""
    if os_release().get("VERSION_CODENAME") == suite and not os.environ.get("VMX_VPID_CHROOT"):
        return System(suite)
    return None


def system(suite):
    """The machine itself if it runs the suite and can have the suite's rustc; a chroot otherwise."""
    here = machine(suite)
    # rustc-web, which builds the test kernel, conflicts with the rustc that builds Debian's kernels.
    if here and here.lacks(["rustc-web"]):
        return here
    return chroot(suite)
