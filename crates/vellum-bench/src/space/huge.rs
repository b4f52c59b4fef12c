//! The same pages for everybody: the C library's allocator, told to ask for huge ones.
//!
//! Our maps take their frames from a mapping with huge pages of the host (`designs::ram`), as a kernel
//! has them in its direct map. The nodes of the peers come from the program's allocator, and would lie
//! in small pages; so the program starts itself once more, with the tunable that makes `malloc` ask for
//! huge ones.
//!
//! Source: glibc's manual, "Memory Allocation Tunables", `glibc.malloc.hugetlb`.

use std::os::unix::process::CommandExt;
use std::process::Command;

const VARIABLE: &str = "GLIBC_TUNABLES";
const TUNABLE: &str = "glibc.malloc.hugetlb=1";

/// Starts the program anew with the tunable, unless it has it; does nothing where that fails.
pub(super) fn begin() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // Returns only when it fails, and then small pages will do.
        let _ =
            Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, TUNABLE).exec();
    }
}
