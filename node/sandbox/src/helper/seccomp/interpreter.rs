//! The kernel's side, for the tests: runs a filter over one call, by the kernel's rules for such programs.
//!
//! It has its own constants on purpose: it shares nothing with what it checks.

use libc::sock_filter;

/// What the kernel shows to the filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) machine: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    /// The 32 bits at this offset of the kernel's `struct seccomp_data`.
    fn word(&self, offset: u32) -> u32 {
        assert_eq!(offset % 4, 0, "the kernel refuses loads that are not aligned");
        let half = |value: u64| u32::try_from(if offset.is_multiple_of(8) { value & 0xffff_ffff } else { value >> 32 }).unwrap();
        match offset {
            0 => self.number,
            4 => self.machine,
            8 | 12 => panic!("the filter has no use for where the call comes from"),
            _ => half(self.arguments[usize::try_from((offset - 16) / 8).unwrap()]),
        }
    }
}

/// The answer, and how many instructions it took.
pub(super) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut at, mut steps, mut accumulator) = (0_usize, 0_usize, 0_u32);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        steps += 1;
        at += 1;
        let mut jump = |so: bool| at += usize::from(if so { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x15 => jump(accumulator == k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x05 => at += usize::try_from(k).unwrap(),
            0x06 => return (k, steps),
            other => panic!("instruction {other:#x} is none that the filter uses"),
        }
    }
}
