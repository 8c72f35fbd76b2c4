// SPDX-License-Identifier: GPL-2.0

//! This module prints the EPTs of VMs, line by line, for `ept` and `ept_summary` in debugfs.
//!
//! A read records the VMs when it begins, and visits one after the other, root by root.  It looks
//! at one piece of an EPT at a time.  Between two pieces it holds nothing of KVM's; if a VM or a
//! root is gone by then, the file says so.

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

/// The largest number of regions of a piece.
const REGIONS_AT_ONCE: usize = 64;

/// Further lines of a piece: the last region of an EPT, and its summary.
const MORE_LINES: usize = 2;

/// The content of a line.
#[derive(Clone, Copy)]
enum Line {
    /// Nothing is to be seen; why.
    Nothing(&'static str),
    /// There is a VM, and it has no EPT (yet).
    NoRoot(Vm),
    /// The following lines are about this EPT.
    Root(Vm, Root),
    /// A VM or root is no more, and what was to follow of this EPT will not.
    Gone(Vm, Root),
    /// Addresses that stand for the same.
    Region(Region),
    /// All of an EPT, in numbers.
    Summary(Vm, Root, Summary),
}

/// A root, as it is named in lines.
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

/// An EPT that is looked at.
struct Walk {
    /// Its VM.
    vm: Vm,
    /// Its root.
    root: Root,
    /// The position in the EPT.
    cursor: Cursor,
    /// The region that may go on.
    regions: Regions,
    /// The counts so far.
    summary: Summary,
}

/// The file that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// Regions.
    Regions,
    /// Numbers.
    Summary,
}

/// One seq.
struct EptSeq {
    /// The file that is read.
    what: What,
    /// Whose VMs; 0 for all.
    pid: bindings::pid_t,
    /// The number of the line that is shown next, from 0 on.
    number: u64,
    /// That line, if it has been made.
    line: Option<Line>,
    /// Lines that come then, the last one first.
    ready: KVec<Line>,
    /// VMs that come then, the last one first; `None` before the reading has begun.
    vms: Option<KVVec<Vm>>,
    /// Further EPTs of a VM, the last one first.
    roots: KVec<(Vm, Root)>,
    /// The EPT that is being looked at.
    walk: Option<Walk>,
    /// Whether every line was made.
    ended: bool,
}

impl EptSeq {
    /// A reading that has not begun.
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

    /// Makes the line of a number; returns whether there is one.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`]; [`ERESTARTSYS`] when a signal is pending.  The reading can go on after either.
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

    /// Makes the next line, unless it has been made; returns whether there is one.
    fn make(&mut self) -> Result<bool> {
        while self.line.is_none() {
            self.line = self.ready.pop();
            if self.line.is_some() {
                break;
            }
            if self.ended {
                return Ok(false);
            }
            // SAFETY: In a task that may sleep.
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
        // SAFETY: The symbols are resolved while the function runs.
        let step = attach::with_kvm_symbols(|| unsafe { self.step() });
        step.unwrap_or_else(|why| {
            self.say(Line::Nothing(why));
            self.ended = true;
            Ok(())
        })?;
        self.ready.reverse();
        Ok(())
    }

    /// Adds a line; there is room for it.
    fn say(&mut self, line: Line) {
        let said = self.ready.push_within_capacity(line);
        debug_assert!(said.is_ok());
    }

    /// Takes one step with the symbols resolved.
    ///
    /// # Safety
    ///
    /// kvm_intel's symbols are resolved until this returns.
    unsafe fn step(&mut self) -> Result {
        // SAFETY: By the contract.
        if !unsafe { symbols::enable_ept_by_now() } {
            self.say(Line::Nothing("kvm_intel: ept=0, no VM has an EPT"));
            self.ended = true;
            return Ok(());
        }
        if let Some(walk) = self.walk.take() {
            // SAFETY: By the contract.
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
                // SAFETY: By the contract, and EPT is on.
                unsafe { self.take_roots(vm) }?;
            }
            // Not before: if there was no memory for its roots, the VM is come back to.
            self.vms.as_mut().and_then(KVVec::pop);
        } else {
            // SAFETY: By the contract.
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
        // SAFETY: By the contract.
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

    /// Looks at a piece of an EPT.
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
                // Nothing may be allocated here; the caller reserved the room.
                if let Some(region) = region {
                    let said = ready.push_within_capacity(Line::Region(region));
                    debug_assert!(said.is_ok());
                }
                ready.len() < REGIONS_AT_ONCE
            });
        };
        // SAFETY: By the contract.
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

/// Begins a seq.
///
/// # Safety
///
/// `reading` can be written; what it gets is given to [`vmx_vpid_ept_close()`] in the end.
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
        // SAFETY: By the safety requirements the pointer can be written.
        unsafe { seq.write(KBox::into_raw(new).cast()) };
        Ok(0)
    })
}

/// Ends a seq.
///
/// # Safety
///
/// It is one of [`vmx_vpid_ept_open()`], and is not used again.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_close(seq: *mut c_void) {
    // SAFETY: By the safety requirements this is a value of `vmx_vpid_ept_open()` that is not used
    // again.
    drop(unsafe { KBox::<EptSeq>::from_raw(seq.cast()) });
}

/// Moves to the line of a number; returns 1 if there is one, 0 at the end, or an errno.
///
/// # Safety
///
/// `reading` is one of [`vmx_vpid_ept_open()`], and no other task uses it at the same time.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_line(seq: *mut c_void, line: u64) -> c_int {
    // SAFETY: By the safety requirements this is a value of `vmx_vpid_ept_open()` that no other
    // task uses.
    let seq = unsafe { &mut *seq.cast::<EptSeq>() };
    from_result(|| Ok(c_int::from(seq.start(line)?)))
}

/// Shows the current line.
///
/// # Safety
///
/// `reading` is one of [`vmx_vpid_ept_open()`] that no task changes at the same time; this task
/// alone reads `file`.
#[no_mangle]
unsafe extern "C" fn vmx_vpid_ept_show(seq: *const c_void, file: *mut bindings::seq_file) {
    // SAFETY: By the safety requirements this task alone reads `file`; both bindings of the type
    // are the same C type.
    let file = unsafe { SeqFile::from_raw(file.cast()) };
    // SAFETY: By the safety requirements this is a value of `vmx_vpid_ept_open()` that no task
    // changes.
    if let Some(line) = unsafe { &*seq.cast::<EptSeq>() }.line {
        seq_print!(file, "{line}\n");
    }
}
