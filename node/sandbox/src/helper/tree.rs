//! The stub's view of the tool's process tree: sampling, stopping and killing it.
//!
//! Always true: the stub is the reaper of every orphan below it, so "no child is left to wait for" means the tree is gone,
//! daemons with sessions of their own included. In a namespace of its own a signal reaches all of them at once, and nobody else.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::proc::{self, Process};
use crate::sys;

/// Rounds of stopping: each finds what was forked during the one before it.
const STOP_ROUNDS_MAX: u32 = 50;
/// A process that is still there after this is stuck in the kernel and is reported instead of waited for.
const KILL_TIME_MAX: Duration = Duration::from_secs(5);
const KILL_PAUSE_MIN: Duration = Duration::from_micros(200);
const KILL_PAUSE_MAX: Duration = Duration::from_millis(10);

/// One look at the whole tree.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
    pub(super) tasks: u64,
}

/// The processes below the stub.
#[derive(Debug)]
pub(super) struct Tree {
    stub: i32,
}

impl Tree {
    /// Makes this process the reaper of all that it starts, and of what they start.
    pub(super) fn new(stub: Pid) -> io::Result<Self> {
        let tree = Self { stub: stub.as_raw_nonzero().get() };
        if !tree.is_namespace() {
            rustix::process::set_child_subreaper(Some(stub))?;
        }
        Ok(tree)
    }

    /// True when everything but the stub in its pid namespace is the tree.
    pub(super) fn is_namespace(&self) -> bool {
        self.stub == 1
    }

    /// Adds up the tree. Above `memory_bytes` the sum is taken again without counting shared pages twice.
    pub(super) fn sample(&self, memory_bytes: u64) -> Sample {
        let living = self.living();
        let (cpu, peak_bytes) = sys::used_by_children();
        let mut sample = Sample { cpu, peak_bytes, ..Sample::default() };
        for process in &living {
            sample.cpu = sample.cpu.saturating_add(process.cpu);
            sample.resident_bytes = sample.resident_bytes.saturating_add(process.resident_bytes);
            sample.tasks = sample.tasks.saturating_add(process.threads.into());
        }
        if sample.resident_bytes > memory_bytes && living.len() > 1 {
            let share = |process: &Process| proc::proportional_bytes(process).unwrap_or(process.resident_bytes);
            sample.resident_bytes = living.iter().map(share).fold(0, u64::saturating_add);
        }
        let peaks = living.iter().map(proc::peak_resident_bytes);
        sample.peak_bytes = peaks.max().unwrap_or(0).max(sample.peak_bytes).max(sample.resident_bytes);
        sample
    }

    /// Stops everything, also what is forked meanwhile. Answers whether anything was at work before.
    pub(super) fn stop(&self) -> bool {
        let mut was_at_work = false;
        for _ in 0..STOP_ROUNDS_MAX {
            let moving: Vec<Process> = self.living().into_iter().filter(|process| !process.is_stopped()).collect();
            if moving.is_empty() {
                break;
            }
            // Who waits in the kernel, for a child that is stopped for instance, is at no work, and cannot be stopped.
            was_at_work |= moving.iter().any(|process| !process.is_stuck());
            self.signal(&moving, Signal::STOP);
            std::thread::sleep(KILL_PAUSE_MIN);
        }
        was_at_work
    }

    pub(super) fn resume(&self) {
        let all = if self.is_namespace() { Vec::new() } else { self.living() };
        self.signal(&all, Signal::CONT);
    }

    /// Kills everything and collects it. Answers how many processes could not be killed in time.
    pub(super) fn kill(&self) -> u32 {
        let deadline = Instant::now() + KILL_TIME_MAX;
        let mut pause = KILL_PAUSE_MIN;
        loop {
            let all = if self.is_namespace() { Vec::new() } else { self.living() };
            self.signal(&all, Signal::KILL);
            while let Ok(Some(_)) = collect() {}
            if matches!(collect(), Err(rustix::io::Errno::CHILD)) {
                return 0;
            }
            if Instant::now() >= deadline {
                return u32::try_from(self.living().len()).unwrap_or(u32::MAX);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(KILL_PAUSE_MAX);
        }
    }

    /// To the whole namespace where there is one, otherwise to those named.
    fn signal(&self, processes: &[Process], signal: Signal) {
        if self.is_namespace() {
            return sys::signal_all_others(signal.as_raw());
        }
        for process in processes {
            process.signal(signal);
        }
    }

    fn living(&self) -> Vec<Process> {
        let all = if self.is_namespace() { proc::all_others(self.stub) } else { proc::descendants(self.stub) };
        all.into_iter().filter(|process| !process.is_dead()).collect()
    }
}

/// Collects one ended child, if there is one.
pub(super) fn collect() -> rustix::io::Result<Option<(Pid, WaitStatus)>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}
