// SPDX-License-Identifier: GPL-2.0

//! This module prints the EPTs of VMs, line by line, for `ept` and `ept_summary` in debugfs.
//!
//! A read lists the VMs when the read begins, and then visits one VM after the other, root by root,
//! one piece of an EPT at a time.  Between two pieces the read holds neither a lock nor a reference
//! of KVM's; if the VM or the root no longer exists at the next piece, the file says so.

use crate::{
    bindings,
    ept::{
        cursor::{
            Cursor,
            Progress,
            ENTRIES_AT_ONCE, //
        },
        dump::{
            Region,
            Regions, //
        },
        summary::Summary, //
    },
    kvm::{
        attach,
        roots::{
            self,
            Root,
            Vm, //
        },
        symbols, //
    }, //
};
use kernel::{
    error::from_result,
    ffi::c_void,
    fmt,
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    }, //
};

/// The largest number of regions that one piece adds.
const REGIONS_AT_ONCE: usize = 64;

/// The number of further lines that one piece adds: the last region of an EPT, and its summary.
const MORE_LINES: usize = 2;

/// The content of a line.
#[derive(Clone, Copy)]
enum Line {
    /// There is no EPT to show; the reason.
    Nothing(&'static str),
    /// A VM that has no EPT at the moment.
    NoRoot(Vm),
    /// The header of the lines about an EPT.
    Root(Vm, Root),
    /// The VM or the root no longer exists, so the rest of this EPT is missing.
    Gone(Vm, Root),
    /// A region of addresses with equal attributes.
    Region(Region),
    /// The counts of an EPT.
    Summary(Vm, Root, Summary),
}

/// Displays a root's VM and address, which name the root.
struct Name<'a>(&'a Vm, &'a Root);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid={} root={:#x}", self.0.pid, self.1.facts().table)
    }
}

/// Displays the use of a root.
struct Usage<'a>(&'a Root);

impl fmt::Display for Usage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.0.facts();
        let mmu = if facts.tdp { "tdp" } else { "shadow" };
        let user = if facts.l2 { "l2" } else { "l1" };
        write!(f, "mmu={mmu} use={user} nested={}", u8::from(!facts.direct))?;
        write!(f, " smm={} levels={}", u8::from(facts.smm), facts.levels)?;
        write!(
            f,
            " ad={} mbec={}",
            u8::from(facts.ad),
            u8::from(facts.mbec)
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(why) => f.write_str(why),
            Self::NoRoot(vm) => write!(f, "pid={} root=-", vm.pid),
            Self::Root(vm, root) => {
                f.write_fmt(fmt!("---[ {} {} ]---", Name(vm, root), Usage(root)))
            }
            Self::Gone(vm, root) => f.write_fmt(fmt!("{} gone", Name(vm, root))),
            Self::Region(region) => f.write_fmt(fmt!("{region}")),
            Self::Summary(vm, root, summary) => {
                f.write_fmt(fmt!("{} {} {summary}", Name(vm, root), Usage(root)))
            }
        }
    }
}

/// An EPT that is being read.
struct Walk {
    /// The VM of the EPT.
    vm: Vm,
    /// The root of the EPT.
    root: Root,
    /// The position in the EPT.
    cursor: Cursor,
    /// The last region, which the next entry may extend.
    regions: Regions,
    /// The counts of the entries that were read.
    summary: Summary,
}

/// The file that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// `ept`: the regions of each EPT.
    Regions,
    /// `ept_summary`: the counts of each EPT.
    Summary,
}

/// The state of one opening of `ept` or `ept_summary`.
struct EptSeq {
    /// The file that is read.
    what: What,
    /// The process whose VMs are shown; 0 for the VMs of all processes.
    pid: bindings::pid_t,
    /// The number of the line that is shown next, counted from 0.
    number: u64,
    /// The line with that number, if it has been made.
    line: Option<Line>,
    /// The lines after that line; the last element comes first.
    ready: KVec<Line>,
    /// The VMs whose EPTs are not recorded yet; the last element comes first.  `None` before the
    /// VMs are listed.
    vms: Option<KVVec<Vm>>,
    /// The EPTs of a VM that are not read yet; the last element comes first.
    roots: KVec<(Vm, Root)>,
    /// The EPT that is being read.
    walk: Option<Walk>,
    /// Whether no further line will be made.
    ended: bool,
}

impl EptSeq {
    /// Returns the state before the first line.
    fn new(what: What, pid: bindings::pid_t) -> Self {
        Self {
            what,
            pid,
            number: 0,
            line: None,
            ready: KVec::new(),
            vms: None,
            roots: KVec::new(),
            walk: None,
            ended: false,
        }
    }

    /// Makes the line with a number, counted from 0; returns false if the file ends before that
    /// line.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`ERESTARTSYS`] when a signal is pending.  The next call continues after either
    /// error.
    fn start(&mut self, number: u64) -> Result<bool> {
        if number < self.number {
            *self = Self::new(self.what, self.pid);
        }
        while self.number < number {
            if !self.make()? {
                return Ok(false);
            }
            self.number = self.number.saturating_add(1);
            self.line = None;
        }
        self.make()
    }

    /// Makes the next line, unless it has been made; returns false at the end of the file.
    fn make(&mut self) -> Result<bool> {
        while self.line.is_none() {
            self.line = self.ready.pop();
            if self.line.is_some() {
                break;
            }
            if self.ended {
                return Ok(false);
            }
            // SAFETY: The helper may sleep, and so may this task, which reads a file and holds no
            // spinlock.
            if !unsafe { bindings::vmx_vpid_may_go_on() } {
                return Err(ERESTARTSYS);
            }
            self.go_on()?;
        }
        Ok(true)
    }

    /// Takes one step, which makes some lines or none.
    fn go_on(&mut self) -> Result {
        self.ready
            .reserve(REGIONS_AT_ONCE + MORE_LINES, GFP_KERNEL)?;
        // SAFETY: `with_kvm_symbols()` keeps the symbols resolved while the closure runs.
        let step = attach::with_kvm_symbols(|| unsafe { self.step() });
        step.unwrap_or_else(|why| {
            self.say(Line::Nothing(why));
            self.ended = true;
            Ok(())
        })?;
        self.ready.reverse();
        Ok(())
    }

    /// Adds a line, for which `go_on()` has reserved the room.
    fn say(&mut self, line: Line) {
        let said = self.ready.push_within_capacity(line);
        debug_assert!(said.is_ok());
    }

    /// Takes one step: lists the VMs, records the EPTs of a VM, begins an EPT, or reads a piece of
    /// an EPT.
    ///
    /// # Safety
    ///
    /// kvm_intel's symbols are resolved until this returns.
    unsafe fn step(&mut self) -> Result {
        // SAFETY: By the safety requirements the symbols are resolved.
        if !unsafe { symbols::enable_ept_by_now() } {
            self.say(Line::Nothing("kvm_intel: ept=0, no VM has an EPT"));
            self.ended = true;
            return Ok(());
        }
        if let Some(walk) = self.walk.take() {
            // SAFETY: By the safety requirements the symbols are resolved.
            unsafe { self.look(walk) };
        } else if let Some((vm, root)) = self.roots.pop() {
            if self.what == What::Regions {
                self.say(Line::Root(vm, root));
            }
            self.walk = Some(Walk {
                vm,
                root,
                cursor: Cursor::new(),
                regions: Regions::default(),
                summary: Summary::new(root.flags()),
            });
        } else if let Some(vms) = &self.vms {
            let Some(&vm) = vms.last() else {
                self.ended = true;
                return Ok(());
            };
            if self.pid == 0 || vm.pid == self.pid {
                // SAFETY: By the safety requirements the symbols are resolved, and
                // `enable_ept_by_now()` returned true.
                unsafe { self.take_roots(vm) }?;
            }
            // The VM stays in the list until its EPTs are recorded: if memory runs out, the next
            // step retries the VM.
            self.vms.as_mut().and_then(KVVec::pop);
        } else {
            // SAFETY: By the safety requirements the symbols are resolved.
            self.vms = Some(unsafe { roots::vms() }?);
        }
        Ok(())
    }

    /// Records the EPTs of a VM.
    ///
    /// # Safety
    ///
    /// kvm_intel's symbols are resolved until this returns, and EPT is on.
    unsafe fn take_roots(&mut self, vm: Vm) -> Result {
        // SAFETY: By the safety requirements the symbols are resolved and EPT is on.
        let Some(roots) = unsafe { roots::roots(&vm) }? else {
            return Ok(());
        };
        self.roots.reserve(roots.len(), GFP_KERNEL)?;
        if roots.is_empty() {
            self.say(Line::NoRoot(vm));
        }
        for &root in &roots {
            self.roots.push((vm, root), GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Reads a piece of an EPT.
    ///
    /// # Safety
    ///
    /// kvm_intel's symbols are resolved until this returns.
    unsafe fn look(&mut self, mut walk: Walk) {
        let Self { what, ready, .. } = self;
        let Walk {
            vm,
            root,
            cursor,
            regions,
            summary,
        } = &mut walk;
        let (tree, flags) = (root.tree(), root.flags());
        let mut progress = Progress::More;
        let look = |tables: &mut roots::Live| {
            progress = cursor.advance(tree, tables, ENTRIES_AT_ONCE, |seen| {
                summary.add(seen);
                let region = match what {
                    What::Regions => regions.add(seen, flags),
                    What::Summary => None,
                };
                // This closure runs with KVM's locks held and must not allocate: `go_on()` has
                // reserved the room.
                if let Some(region) = region {
                    let said = ready.push_within_capacity(Line::Region(region));
                    debug_assert!(said.is_ok());
                }
                ready.len() < REGIONS_AT_ONCE
            });
        };
        // SAFETY: By the safety requirements the symbols are resolved.
        let there = unsafe { roots::look_at(vm, root, look) };
        let walk = match (there, progress) {
            (true, Progress::More) => {
                self.walk = Some(walk);
                return;
            }
            _ => &mut walk,
        };
        if let Some(region) = walk.regions.end() {
            self.say(Line::Region(region));
        }
        if !there {
            self.say(Line::Gone(walk.vm, walk.root));
        } else if self.what == What::Summary {
            self.say(Line::Summary(walk.vm, walk.root, walk.summary));
        }
    }
}

/// Makes the state of an opened `ept` or `ept_summary`, for the VMs of process `pid`, or of all
/// processes if `pid` is 0; returns 0 or a negative errno.
///
/// # Safety
///
/// `seq` can be written, and the caller passes the written pointer to [`vmx_vpid_ept_close()`] in
/// the end.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_open(
    summary: bool,
    pid: bindings::pid_t,
    seq: *mut *mut c_void,
) -> c_int {
    from_result(|| {
        let what = if summary {
            What::Summary
        } else {
            What::Regions
        };
        let new = KBox::new(EptSeq::new(what, pid), GFP_KERNEL)?;
        // SAFETY: By the safety requirements `seq` can be written.
        unsafe { seq.write(KBox::into_raw(new).cast()) };
        Ok(0)
    })
}

/// Frees the state of an opened file.
///
/// # Safety
///
/// `seq` comes from [`vmx_vpid_ept_open()`], and is not used again.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_close(seq: *mut c_void) {
    // SAFETY: By the safety requirements `seq` comes from `vmx_vpid_ept_open()` and is not used
    // again.
    drop(unsafe { KBox::<EptSeq>::from_raw(seq.cast()) });
}

/// Moves to the line with a number, counted from 0; returns 1 if there is such a line, 0 at the end
/// of the file, or a negative errno.
///
/// # Safety
///
/// `seq` comes from [`vmx_vpid_ept_open()`], and no other task uses it at the same time.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_line(seq: *mut c_void, line: u64) -> c_int {
    // SAFETY: By the safety requirements `seq` comes from `vmx_vpid_ept_open()`, and no other task
    // uses it.
    let seq = unsafe { &mut *seq.cast::<EptSeq>() };
    from_result(|| Ok(c_int::from(seq.start(line)?)))
}

/// Shows the current line.
///
/// # Safety
///
/// `seq` comes from [`vmx_vpid_ept_open()`], and no task changes it at the same time; `file` is
/// being read by this task, and by no other.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_show(seq: *const c_void, file: *mut bindings::seq_file) {
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    let file = unsafe { SeqFile::from_raw(file.cast()) };
    // SAFETY: By the safety requirements `seq` comes from `vmx_vpid_ept_open()`, and no task
    // changes it.
    if let Some(line) = unsafe { &*seq.cast::<EptSeq>() }.line {
        seq_print!(file, "{line}\n");
    }
}
