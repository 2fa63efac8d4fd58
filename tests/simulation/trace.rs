//! Everything that happened in a run, as one hash: two runs of a seed must have the same.

use std::fmt::{self, Write};

/// FNV-1a over the lines of the run.
pub(crate) struct Trace {
    hash: u64,
    pub(crate) lines: u64,
    verbose: bool,
}

impl Trace {
    pub(crate) const fn new(verbose: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: 0, verbose }
    }

    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) {
        if self.verbose {
            eprintln!("{:>5} {line}", self.lines);
        }
        self.lines += 1;
        // Hashing text to memory cannot fail.
        let _ = self.write_fmt(line);
        let _ = self.write_str("\n");
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}
