//! The system call filter: what of the kernel a tool can reach at all, as a program that the kernel runs before each call.
//!
//! Always true: the filter is a pure function of the machine and of the one question whether the tool may have sockets to the
//! internet. A call of another machine's convention kills the process; a call that is not in [`table`] does not exist. It must be
//! installed last, since it refuses much of what setting up a tool needs; replacing the program by the tool's passes it.
//!
//! It does not know how it is installed. Path names are behind pointers, which such a program cannot follow, so nothing here is
//! about files: that is the work of the mounts and of Landlock.

mod assembler;
mod program;
mod table;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

/// Which sockets a tool can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// Between processes of this machine.
    Local,
    /// Also TCP. Never datagrams and never raw: nothing could restrict where those go.
    Internet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("there is no system call filter for the architecture {}; only for x86_64 and aarch64", std::env::consts::ARCH)]
    Architecture,
    #[error("the system call filter has {0} instructions, more than the kernel takes")]
    TooLong(usize),
}

/// A kernel's calling convention, by which the numbers are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The one this program was built for. The order of bytes matters too: arguments are read by halves.
    const fn host() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little", target_pointer_width = "64")) {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// How the kernel names it to the filter: the ELF number with the bits for 64 bit and little-endian.
    const fn audit(self) -> u32 {
        const FLAGS: u32 = 0xc000_0000;
        match self {
            Self::X86_64 => FLAGS | 62,
            Self::Aarch64 => FLAGS | 183,
        }
    }
}

/// The filter for tools on this machine.
pub(crate) fn filter(sockets: Sockets) -> Result<Vec<libc::sock_filter>, FilterError> {
    program::program(Machine::host().ok_or(FilterError::Architecture)?, sockets)
}
