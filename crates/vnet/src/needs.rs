//! What a test needs of the machine that it runs on.

use std::env;
use std::io::{self, Write};

/// Ends the test here where one of the programs is missing, and says so on standard error, past the test runner that
/// keeps what passing tests print; fails instead where `KITH_REQUIRE_ALL` is set.
#[macro_export]
macro_rules! needs {
    ($($program:expr),+) => {
        $(if !$crate::is_there($program) {
            return $crate::skipped($program);
        })+
    };
}

/// Whether there is a program of this name.
#[must_use]
pub fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Says that a test is skipped because the machine lacks something that can be installed or allowed.
///
/// # Panics
/// Where `KITH_REQUIRE_ALL` is set: nothing may be skipped then.
#[track_caller]
pub fn skipped(need: &str) {
    assert!(env::var_os("KITH_REQUIRE_ALL").is_none(), "{need} is required and missing");
    unable(need);
}

/// Says that a test is skipped because of what this machine is.
pub fn unable(need: &str) {
    // Not eprintln!, which the runner keeps to itself.
    let _nobody_reads_it_where_this_fails = writeln!(io::stderr(), "skipped: needs {need}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn programs_are_looked_for_by_name() {
        assert!(super::is_there("cargo"));
        assert!(!super::is_there("no-such-program-anywhere"));
    }
}
