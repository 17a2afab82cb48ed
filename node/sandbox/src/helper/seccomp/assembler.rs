//! Puts the filter's instructions together, back to front.
//!
//! Always true: a jump leads forward to something that is already there, so every distance is known when the jump is written; one
//! that does not fit into the eight bits of a condition goes through an unconditional jump beside it.

use libc::sock_filter;

use super::FilterError;

/// The kernel's limit for one program.
const INSTRUCTIONS_MAX: usize = 4096;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;

/// A comparison of the accumulator with a constant.
#[derive(Debug, Clone, Copy)]
pub(super) enum If {
    Equal,
    AtLeast,
    AnyBit,
}

impl If {
    const fn code(self) -> u16 {
        match self {
            Self::Equal => 0x15,
            Self::AtLeast => 0x35,
            Self::AnyBit => 0x45,
        }
    }
}

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(u32);

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<sock_filter>,
    next: u32,
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// Ends the program with this value. The same value is written once.
    pub(super) fn answer(&mut self, value: u32) -> Label {
        if let Some((_, known)) = self.returns.iter().find(|(of, _)| *of == value) {
            return *known;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.push((value, label));
        label
    }

    pub(super) fn branch(&mut self, condition: If, value: u32, mut yes: Label, mut no: Label) -> Label {
        loop {
            match (u8::try_from(self.distance(yes)), u8::try_from(self.distance(no))) {
                (Ok(to_yes), Ok(to_no)) => return self.push(condition.code(), to_yes, to_no, value),
                (Err(_), _) => yes = self.jump(yes),
                (_, Err(_)) => no = self.jump(no),
            }
        }
    }

    /// Loads the 32 bits at this offset of what the kernel shows, then goes on there.
    pub(super) fn load(&mut self, offset: u32, then: Label) -> Label {
        self.falling_into(then);
        self.push(LOAD, 0, 0, offset)
    }

    pub(super) fn mask(&mut self, bits: u32, then: Label) -> Label {
        self.falling_into(then);
        self.push(AND, 0, 0, bits)
    }

    /// The program, whose first instruction is the one written last.
    pub(super) fn finish(mut self) -> Result<Vec<sock_filter>, FilterError> {
        let length = self.reversed.len();
        if length > INSTRUCTIONS_MAX {
            return Err(FilterError::TooLong(length));
        }
        self.reversed.reverse();
        Ok(self.reversed)
    }

    /// Sees to it that whatever is written next falls into this place.
    fn falling_into(&mut self, then: Label) {
        if self.distance(then) != 0 {
            self.jump(then);
        }
    }

    fn jump(&mut self, to: Label) -> Label {
        self.push(JUMP, 0, 0, self.distance(to))
    }

    /// How many instructions the next one written would have to skip to get there.
    const fn distance(&self, to: Label) -> u32 {
        self.next.saturating_sub(to.0).saturating_sub(1)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        let label = Label(self.next);
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.next = self.next.saturating_add(1);
        label
    }
}
