# SPDX-License-Identifier: GPL-2.0
#
# What the tests of vmx_vpid share.  Sourced, in any POSIX shell with "local".

DIR=$(dirname "$0")
# The programs are beside the scripts, or where "make" puts them by default.
BIN=$DIR
[ -d "$BIN/guests" ] && [ -d "$BIN/kvm" ] || BIN=$DIR/output
SYSFS=/sys/kernel/livepatch/vmx_vpid
DEBUGFS=/sys/kernel/debug/vmx_vpid

# Where the module and kvm_intel are: the testbed's root image has both in one
# folder; elsewhere the module is in the checkout, and modprobe knows kvm_intel.
for MODULE in "${VMX_VPID_KO:-}" /lib/modules/vmx_vpid.ko "$DIR/../build/test/vmx_vpid.ko"; do
	[ -f "$MODULE" ] && break
done
for helpers in "$DIR/ktap_helpers.sh" "$DIR/../kselftest/ktap_helpers.sh" \
	"${KSELFTEST_DIR:-}/kselftest/ktap_helpers.sh"; do
	if [ -f "$helpers" ]; then
		. "$helpers"
		break
	fi
done
if [ -z "${KSFT_SKIP:-}" ]; then
	echo "1..0 # SKIP ktap_helpers.sh not found: set KSELFTEST_DIR="
	exit 4
fi

skip_all() { # reason
	ktap_skip_all "$@"
	exit "$KSFT_SKIP"
}

# check NAME COMMAND...: one test; what the command prints is shown when it fails
check() {
	local name="$1" out
	shift
	if out=$("$@" 2>&1); then
		ktap_test_pass "$name"
	else
		ktap_test_fail "$name"
		printf '%s\n' "failed: $*" "$out" "phase $(phase)" | sed 's/^/# /'
	fi
}

# eventually COMMAND...: true as soon as the command is, within 60 s
eventually() {
	local end=$(($(cut -d. -f1 /proc/uptime) + 60))
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ] || return 1
		sleep 0.1
	done
}

stat_of() { # name: a value of debugfs
	sed -n "s/^$1 //p" "$DEBUGFS/stats"
}

phase() {
	if [ -d "$DEBUGFS" ]; then
		sed -n 's/^phase //p' "$DEBUGFS/status"
	else
		echo "not loaded"
	fi
}

phase_is() { [ "$(phase)" = "$1" ]; }
stat_is() { [ "$(stat_of "$1")" = "$2" ]; }
# What counters are now, and whether some grew since, or none did.
remember() {
	BEFORE=$(cat $DEBUGFS/stats)
}
growth() { echo $(($(stat_of "$1") - $(echo "$BEFORE" | sed -n "s/^$1 //p"))); }
grew() { # counters
	local name
	for name; do [ "$(growth "$name")" -gt 0 ] || { echo "$name did not grow"; return 1; }; done
}
stayed() { # counters
	local name
	for name; do
		[ "$(growth "$name")" = 0 ] || { echo "$name: $(growth "$name")"; return 1; }
	done
}
stat_positive() { [ "$(stat_of "$1")" -gt 0 ]; }
settled() { [ "$(cat $SYSFS/transition)" = 0 ]; }
loaded() { grep -q "^$1 " /proc/modules; }
not() { ! "$@"; }

# The kernel's log from a mark on; it fails if the mark is gone.
mark_log() {
	MARK="selftest of vmx_vpid: $$ at $(cut -d' ' -f1 /proc/uptime)"
	echo "$MARK" >/dev/kmsg
}
log() { dmesg | awk -v mark="$MARK" 'found; index($0, mark) { found = 1 } END { exit !found }'; }
said() { log | grep -q "$1" || { log | tail -20; false; }; }
no_new_warnings() {
	log >/dev/null || {
		echo "the log lost its beginning: log_buf_len= makes it larger"
		return 1
	}
	! log | grep -E 'WARNING:|BUG:|Oops|possible circular|KASAN'
}

# A place of its own for what is traced.
TRACING=/sys/kernel/tracing/instances/vmx_vpid
trace_on() { # events
	local event
	[ -d /sys/kernel/tracing/instances ] || mount -t tracefs none /sys/kernel/tracing || return
	mkdir $TRACING || return
	for event; do echo 1 >$TRACING/events/$event/enable || return; done
}
trace_off() { rmdir $TRACING; }

# At least so many VMs exist.
vms() { [ "$(ls -d /sys/kernel/debug/kvm/[0-9]*-* 2>/dev/null | wc -l)" -ge "$1" ]; }

load_kvm() { # parameters of kvm_intel
	if [ -f /lib/modules/kvm-intel.ko ]; then
		loaded irqbypass || insmod /lib/modules/irqbypass.ko || return
		loaded kvm || insmod /lib/modules/kvm.ko || return
		insmod /lib/modules/kvm-intel.ko "$@"
	else
		modprobe kvm_intel "$@"
	fi
}

unload_kvm() {
	! loaded kvm_intel || rmmod kvm_intel
}

reload_kvm() { # parameters of kvm_intel
	unload_kvm && load_kvm "$@"
}

load_module() { # parameters of the module
	insmod "$MODULE" "$@"
}

attach() {
	load_module && eventually phase_is attached && eventually settled
}

gone() { [ ! -d $SYSFS ]; }

# The order of leaving: disable, wait until C serves every task, unload.
detach() {
	echo 0 >$SYSFS/enabled && eventually gone && eventually rmmod vmx_vpid 2>/dev/null
}

require() {
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	[ -f "$MODULE" ] || skip_all "vmx_vpid.ko not found: 'make modules', or set VMX_VPID_KO="
	[ -d /sys/kernel/livepatch ] || skip_all "the kernel has no livepatch"
	grep -qw vmx /proc/cpuinfo || skip_all "the CPU has no VMX"
	[ -d /sys/kernel/debug/kvm ] || [ -d /sys/kernel/debug/sched ] ||
		mount -t debugfs none /sys/kernel/debug || skip_all "no debugfs"
	[ -x "$BIN/guests/remap" ] || skip_all "the guests are not built: run 'make selftests'"
	loaded kvm_intel || load_kvm || skip_all "kvm_intel does not load"
	! loaded vmx_vpid || skip_all "vmx_vpid is loaded already: disable and unload it first"
	mark_log
}

# The address of a function: its module, a pattern of its name.
SYMBOLS=/proc/kallsyms
address() {
	awk -v module="[$1]" -v name="$2" '$4 == module && $3 ~ name { print "0x" $1; exit }' \
		$SYMBOLS
}
# Reading them takes long in an emulator: once for many addresses, after each load.
keep_symbols() { # modules
	local module
	SYMBOLS=/tmp/symbols
	grep -F "$(for module; do echo "[$module]"; done)" /proc/kallsyms >$SYMBOLS
}

# What holds whenever no guest runs and the module is attached.
nothing_leaked() {
	stat_is vpid_in_use 0 && stat_is vpid_not_held 0 && stat_is flush_lost 0 &&
		stat_is insn_vmfail 0 && stat_is insn_fault 0 || { cat $DEBUGFS/stats; false; }
}

# A switch of debugfs.
switch() { # name, value
	echo "$2" >$DEBUGFS/"$1" && grep -q "^$1 $2\$" $DEBUGFS/status
}

# Counters that stay at zero as long as all is well.
FAILURES="flush_lost insn_vmfail insn_fault vpid_not_held"

# A module of the tests, where the testbed or "make modules" put it.
test_module() { # name
	local module="$DIR/$1.ko"
	[ -f "$module" ] || module=$(dirname "$MODULE")/selftests/modules/$1.ko
	echo "$module"
}

# 8 callers that take VPIDs and give them back at once: no VPID has two owners, and
# there is always one to be had.
stress() { # how many calls
	insmod "$(test_module vmx_vpid_stress)" operations="$1" \
		allocate="$(address kvm_intel '^allocate_vpid$')" \
		release="$(address kvm_intel '^free_vpid$')" || { dmesg | tail -5; return 1; }
	rmmod vmx_vpid_stress
}
# Why these callers cannot be on this machine; nothing if they can.
stress_lacks() {
	if [ ! -f "$(test_module vmx_vpid_stress)" ]; then
		echo "vmx_vpid_stress.ko is not built: 'make modules'"
	elif grep -qw ibt /proc/cpuinfo; then
		echo "IBT: functions of KVM cannot be called by address"
	elif [ "$(cat /proc/sys/kernel/kptr_restrict)" = 2 ]; then
		echo "kptr_restrict is 2"
	fi
}

# The lines of VPIDs in use that agree, that do not.
lines_held() { grep -c 'state=held' $DEBUGFS/vpids; }
lines_wrong() { grep -cE 'state=(double|free|unclaimed)' $DEBUGFS/vpids; }
held_is() { [ "$(lines_held)" = "$1" ] && [ "$(lines_wrong)" = 0 ]; }
# Reads the lines until /tmp/stop is there, or until one is wrong; says how many it saw.
# A VPID that no vCPU names is of a vCPU in the making, or of other callers.
watch_lines() {
	local lines seen=0
	while [ ! -e /tmp/stop ]; do
		sleep 0.05
		# There is none while the module is not loaded.
		lines=$(cat $DEBUGFS/vpids 2>/dev/null) || continue
		case $lines in
		*state=double* | *state=free*) echo "$lines" | grep -E 'double|free'; return 1 ;;
		*state=held*) seen=$((seen + 1)) ;;
		esac
	done
	echo "$seen lists with a vCPU"
	[ $seen -gt 0 ]
}

# A child can be waited for by the shell that started it only, not within check.
ended_well() { [ $ended = 0 ]; }
start() { # command, in the background
	"$@" >/dev/null 2>&1 &
	child=$!
}
finish() { # after SIGTERM, unless it ends by itself
	[ -n "${1:-}" ] || kill $child
	wait $child
	ended=$?
}

refused_as() { # errno's text, command...
	local text="$1" out
	shift
	out=$("$@" 2>&1) && return 1
	case $out in
	*"$text"*) ;;
	*) echo "$out"; return 1 ;;
	esac
}

guest() { # name, arguments
	local name="$1"
	shift
	"$BIN/guests/$name" "$@"
}
