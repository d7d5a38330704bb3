//! The program run to its end, as a person runs it, and what the run gave.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up is a failed test")]

use assert_cmd::Command;

/// What a run of the program gave.
pub(crate) struct Ran {
    /// The exit status, or -1 where a signal ended it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// What this command gives.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The program, with neither the settings nor the terminal nor the cluster of whoever runs the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devgrant"));
    command.env_clear();
    command
}
