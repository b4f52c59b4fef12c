//! `compare --fits`: contiguous allocation beside paging.
//!
//! ```text
//!   stream --> every fit, paging --> table on stdout, JSON in a file
//! ```

use super::compare::CompareArgs;
use super::{Failure, cannot_write, json_path, print_table, progress};
use crate::fits::{self, FitsError, stream::MOST_BYTES};
use crate::report;
use crate::table::size;

/// Where the report goes unless the user says otherwise.
const DEFAULT_JSON: &str = "fits.json";

/// The least memory: a page.
const LEAST_BYTES: u64 = 4096;

/// A size: digits, and maybe K, M or G.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units.iter().find_map(|&(c, shift)| Some((text.strip_suffix(c)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        return Err("expected digits, and maybe K, M or G".to_owned());
    }
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes
        .filter(|bytes| (LEAST_BYTES..=MOST_BYTES).contains(bytes))
        .ok_or_else(|| format!("must be {} to {}", size(LEAST_BYTES), size(MOST_BYTES)))
}

/// Reads the stream, compares, writes and prints.
pub(super) fn run(args: &CompareArgs) -> Result<(), Failure> {
    if let Some(path) = args.fits_stream.as_deref().filter(|path| !path.exists()) {
        return Err(Failure::bad_input(format!(
            "--fits-stream {}: no such file (without the option the embedded stream is used; \
             `vellum-lab record-sizes` makes one)",
            path.display()
        )));
    }
    let json = json_path(args, DEFAULT_JSON, args.fits_stream.as_deref())?;
    let failed = |e: FitsError| Failure {
        status: if matches!(e, FitsError::Stream(_) | FitsError::Peak { .. }) { 2 } else { 1 },
        message: e.to_string(),
    };
    let stream = fits::read(args.fits_stream.as_deref()).map_err(|e| failed(e.into()))?;
    let report = fits::compare(&stream, args.fits_memory, &progress()).map_err(failed)?;
    report::write(&report, &json).map_err(|e| cannot_write(&json, &e))?;
    print_table(&fits::render(&report), &json, None)
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(memory("4096"), Ok(4096));
        assert_eq!(memory("640K"), Ok(640 << 10));
        assert_eq!(memory("64G"), Ok(64 << 30));
        for bad in ["", "K", "-1", "+4096", "0", "4095", "65G", "1T", "4k", "4 K", "4.5M"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        assert!(memory("99999999999999999999G").unwrap_err().contains("64 GiB"));
        assert!(memory("18446744073709551615K").unwrap_err().contains("64 GiB"));
    }
}
