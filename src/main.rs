//! The `devgrant` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    devgrant::cli::main()
}
