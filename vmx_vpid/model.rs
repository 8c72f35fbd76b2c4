// SPDX-License-Identifier: GPL-2.0

//! A model of the CPUs and of KVM's core, to find a flush that is missing.
//!
//! Emulators drop more than they have to, and so does hardware most of the time: a missing flush
//! hardly ever shows there.  The CPUs of this model keep every translation for as long as the
//! manual lets them, and KVM's core asks for flushes when KVM does and never else.  In between is
//! the code that the kernel runs: [`crate::vpid`] and [`crate::lease`] give out VPIDs,
//! [`crate::flush`] decides, [`crate::issue`] carries out.
//!
//! After each step no translation may be left that a guest could use and that its tables do not
//! give any more.  The tests also break what they rely on, one thing at a time, and want each of
//! these faults found.

mod kvm;
mod nested;
mod tlb;
mod vcpu;

#[cfg(CONFIG_VMX_VPID_KUNIT_TEST)]
#[kernel::macros::kunit_tests(vmx_vpid_model)]
mod tests {
    use super::{
        kvm::{
            Machine,
            Vpids,
            Wrong,
            CPUS,
            PAGES,
            VCPUS,
            VMS, //
        },
        vcpu::{
            Config,
            Fault, //
        }, //
    };
    use crate::{
        bitmap::Words,
        lease::Flushed,
        policy::Switches,
        vpid::Pool, //
    };
    use core::cell::Cell;
    use kernel::prelude::*;

    /// So many VPIDs for four vCPUs of which each wants two: at times there is none left.
    const VPIDS: u16 = 6;
    /// Steps of one run; each fault has to be found within as many as the sound ones survive.
    const STEPS: u32 = 30_000;

    /// Where the random numbers of a run come from: xorshift, by Marsaglia.
    struct Random(u64);

    impl Random {
        /// A number below another.
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % end
        }
    }

    /// Memory for a run.
    struct Memory {
        used: KBox<Words>,
        words: KVVec<Cell<u64>>,
    }

    impl Memory {
        fn new() -> Result<Self> {
            let words = KVVec::from_elem(Cell::new(0), 65536, GFP_KERNEL)?;
            let used = KBox::zeroed(GFP_KERNEL)?;
            Ok(Self { used, words })
        }

        /// Calls a function with no VPID in use, and none flushed anywhere.
        fn with<R>(&self, function: impl FnOnce(&Vpids<'_>) -> Result<R>) -> Result<R> {
            self.words.iter().for_each(|word| word.set(0));
            let mut pool = KVBox::<Pool>::zeroed(GFP_KERNEL)?;
            pool.import(&self.used, VPIDS, |_| {});
            let (first, rest) = self.words.as_chunks().0.split_first().ok_or(EINVAL)?;
            function(&Vpids {
                pool: Cell::new(Some(pool)),
                flushed: Flushed::new(first, rest),
            })
        }
    }

    /// Who does what comes next.
    struct Course {
        random: Random,
        /// The vCPU that did the last thing.
        id: usize,
        /// Where each vCPU is.
        cpus: [usize; VCPUS],
    }

    impl Course {
        fn new() -> Self {
            Self {
                random: Random(0x2545_f491_4f6c_dd1d),
                id: 0,
                cpus: [0; VCPUS],
            }
        }

        /// Does something, most often with the vCPU of the last time, where that was.
        fn step(&mut self, machine: &mut Machine<'_>) -> Result<(), Wrong> {
            let Config { ept, vpid, .. } = machine.config;
            let random = &mut self.random;
            if random.below(4) == 0 {
                self.id = random.below(VCPUS);
            }
            let (id, cpu) = (self.id, &mut self.cpus[self.id]);
            if random.below(16) == 0 {
                *cpu = random.below(CPUS);
            }
            match random.below(32) {
                0 | 1 => machine.create(id),
                2 if random.below(4) == 0 => machine.destroy(id)?,
                3 => machine.edit(random.below(VMS), random.below(PAGES)),
                4 if random.below(4) == 0 => machine.zap(random.below(VMS)),
                5..9 => machine.set_variant(id, *cpu, random.below(5) as u8)?,
                9 => machine.vmx_on(id, *cpu)?,
                10 if random.below(2) == 0 => machine.vmx_off(id, *cpu)?,
                11..16 => {
                    let vpid12 = if vpid { random.below(3) as u16 } else { 0 };
                    let eptp12 = (ept && random.below(4) != 0).then(|| random.below(4) as u8);
                    machine.enter_l2(id, *cpu, vpid12, eptp12)?;
                }
                16..20 => machine.leave_l2(id, *cpu)?,
                _ => machine.run(id, *cpu, random.below(1 << PAGES) as u64)?,
            }
            Ok(())
        }
    }

    /// Does [`STEPS`] things; returns what went wrong, and at which of them.
    fn run(memory: &Memory, config: Config) -> Result<Option<(u32, Wrong)>> {
        memory.with(|vpids| {
            let machine = &mut Machine::new(config, vpids);
            let mut course = Course::new();
            Ok((0..STEPS).find_map(|count| {
                let wrong = course.step(machine).err()?;
                Some((count, wrong))
            }))
        })
    }

    fn switches(flush_context: bool, caps_mask: u64) -> Switches {
        Switches {
            force_flush: false,
            flush_context,
            caps_mask,
        }
    }

    /// A machine that flushes by context.
    fn by_context(ept: bool) -> Config {
        Config {
            ept,
            vpid: true,
            preempted: true,
            unknown_roots: false,
            switches: switches(true, 0),
            fault: None,
        }
    }

    #[test]
    fn no_stale_translation_can_be_used() -> Result {
        let memory = Memory::new()?;
        let force = Switches {
            force_flush: true,
            ..Switches::default()
        };
        for ept in [false, true] {
            for (vpid, unknown_roots) in [(true, false), (true, true), (false, false)] {
                for switches in [
                    switches(false, 0),
                    switches(true, 0),
                    force,
                    // Without INVEPT of a context; INVVPID of a context, and of all.
                    switches(true, 1 << 25),
                    switches(true, 1 << 41),
                    switches(true, 1 << 42),
                    switches(false, 1 << 42),
                ] {
                    let config = Config {
                        ept,
                        vpid,
                        preempted: true,
                        unknown_roots,
                        switches,
                        fault: None,
                    };
                    let wrong = run(&memory, config)?;
                    if let Some((count, wrong)) = wrong {
                        pr_err!("{:?}: {:?} in step {}\n", config, wrong, count);
                    }
                    assert_eq!(wrong, None);
                }
            }
        }
        Ok(())
    }

    /// Whether a fault is found when flushes go by context.
    fn found(memory: &Memory, ept: bool, fault: Fault) -> Result<bool> {
        let config = Config {
            unknown_roots: fault == Fault::UnknownRootsHidden,
            fault: Some(fault),
            ..by_context(ept)
        };
        match run(memory, config)? {
            Some((count, Wrong::Stale { .. } | Wrong::Dirty(_))) => {
                pr_info!("ept={}: {:?} found in step {}\n", ept, fault, count);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    #[test]
    fn each_flush_that_is_relied_on_is_needed() -> Result {
        let memory = Memory::new()?;
        for ept in [false, true] {
            for fault in [
                Fault::NoFlushOnLoad,
                Fault::NoRemoteFlush,
                Fault::NoFlushOnVpid12,
                Fault::NoFlushOnSharedVpid,
                Fault::NoFlushOnVmxon,
            ] {
                assert!(found(&memory, ept, fault)?);
            }
        }
        assert!(found(&memory, true, Fault::NoFlushOnRootLoad)?);
        // With EPT off the flush of its first root would do for vpid01 as well.
        assert!(found(&memory, true, Fault::NoFlushOnCreate)?);
        assert!(found(&memory, false, Fault::NoFlushOnCr3)?);
        Ok(())
    }

    #[test]
    fn each_context_that_is_named_is_needed() -> Result {
        let memory = Memory::new()?;
        for fault in [
            // L1's current root and its cached ones; L2's.
            Fault::HiddenRoots(0, 1),
            Fault::HiddenRoots(1, 4),
            Fault::HiddenRoots(4, 5),
            Fault::HiddenRoots(5, 8),
            Fault::UnknownRootsHidden,
        ] {
            assert!(found(&memory, true, fault)?);
        }
        assert!(found(&memory, false, Fault::HiddenVpid01)?);
        assert!(found(&memory, false, Fault::HiddenVpid02)?);
        Ok(())
    }

    /// How much a VM has left in a CPU's caches when another one on it was flushed.
    fn left(memory: &Memory, config: Config) -> Result<usize> {
        memory.with(|vpids| {
            let machine = &mut Machine::new(config, vpids);
            let mut both = || {
                for id in [2, 0] {
                    machine.create(id);
                    machine.run(id, 0, 0b11)?;
                }
                // VM 0 has memory remapped.
                machine.edit(0, 0);
                machine.run(0, 0, 0b11)
            };
            assert_eq!(both(), Ok(()));
            let spared = machine.vcpu(2).ok_or(EINVAL)?.vpid01;
            Ok(machine.cpu(0).cached_with(spared))
        })
    }

    #[test]
    fn other_vms_keep_what_they_have() -> Result {
        let memory = Memory::new()?;
        for ept in [false, true] {
            let config = Config {
                preempted: false,
                ..by_context(ept)
            };
            assert_eq!(left(&memory, config)?, PAGES);
            let switches = switches(false, 0);
            assert_eq!(left(&memory, Config { switches, ..config })?, 0);
        }
        Ok(())
    }
}
