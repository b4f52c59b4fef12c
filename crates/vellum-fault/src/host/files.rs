//! Files that are vectors.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::string::String;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;
use vellum_cache::{FileError, FileId, Files};
use vellum_core::{FrameBytes, OutOfFrames, PAGE_SIZE};

/// Files in the host's memory. Shared anonymous memory is one of them without contents of its own.
#[derive(Default)]
pub struct MemoryFiles {
    files: Mutex<BTreeMap<u64, Contents>>,
    reads: AtomicU64,
    /// Holes that other spaces have not been told of.
    punched: Mutex<Vec<(FileId, Range<u64>)>>,
}

#[derive(Default)]
struct Contents {
    bytes: Vec<u8>,
    /// Its length, which of shared anonymous memory is all there is.
    len: u64,
    /// The page cache is the only place where its contents are.
    is_memory: bool,
    /// Every read and write fails.
    broken: bool,
    /// What lists of mappings call it.
    name: String,
}

impl MemoryFiles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Contents>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, contents: Contents) -> FileId {
        let mut files = self.lock();
        let number = files.last_key_value().map_or(1, |(last, _)| last + 1);
        files.insert(number, contents);
        FileId(number)
    }

    /// A file with these contents.
    pub fn create(&self, bytes: &[u8]) -> FileId {
        let len = bytes.len() as u64;
        self.add(Contents { bytes: bytes.to_vec(), len, ..Contents::default() })
    }

    /// Zeros that are in the page cache only, `len` bytes of them.
    pub fn create_memory(&self, len: u64) -> FileId {
        self.add(Contents { len, is_memory: true, ..Contents::default() })
    }

    /// Lets lists of mappings call the file so.
    pub fn set_name(&self, file: FileId, name: &str) {
        if let Some(contents) = self.lock().get_mut(&file.0) {
            contents.name = name.into();
        }
    }

    /// Makes the file longer or shorter. Cache and mappings are the caller's to truncate.
    pub fn set_len(&self, file: FileId, len: u64) {
        if let Some(contents) = self.lock().get_mut(&file.0) {
            contents.len = len;
            contents.bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        }
    }

    /// What was stored in the file: not what the page cache has beyond that.
    pub fn stored(&self, file: FileId) -> Vec<u8> {
        self.lock().get(&file.0).map(|contents| contents.bytes.clone()).unwrap_or_default()
    }

    /// Lets every read and write of the file fail, or not any more.
    pub fn set_broken(&self, file: FileId, broken: bool) {
        if let Some(contents) = self.lock().get_mut(&file.0) {
            contents.broken = broken;
        }
    }

    /// The holes made by `MADV_REMOVE` since this was last asked: file and pages, in order. Whoever has
    /// several spaces tells each of them.
    pub fn take_punched(&self) -> Vec<(FileId, Range<u64>)> {
        core::mem::take(&mut self.punched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pages that were read.
    pub fn count_reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }
}

impl Files for MemoryFiles {
    fn len_bytes(&self, file: FileId) -> u64 {
        self.lock().get(&file.0).map_or(0, |contents| contents.len)
    }

    fn read(&self, file: FileId, index: u64, to: FrameBytes<'_>) -> Result<(), FileError> {
        self.reads.fetch_add(1, Relaxed);
        let files = self.lock();
        let contents = files.get(&file.0).filter(|contents| !contents.broken);
        let contents = contents.ok_or(FileError::Io)?;
        let start = usize::try_from(index * PAGE_SIZE).unwrap_or(usize::MAX);
        let rest = contents.bytes.get(start..).unwrap_or_default();
        let len = rest.len().min(PAGE_SIZE as usize);
        to.write(0, &rest[..len]);
        to.zero_from(len);
        Ok(())
    }

    fn write(&self, file: FileId, index: u64, from: FrameBytes<'_>) -> Result<(), FileError> {
        let mut files = self.lock();
        let contents = files.get_mut(&file.0).filter(|contents| !contents.broken);
        let contents = contents.ok_or(FileError::Io)?;
        let start = index * PAGE_SIZE;
        let end = (start + PAGE_SIZE).min(contents.len);
        let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return Err(FileError::NoSpace);
        };
        if contents.bytes.len() < end {
            contents.bytes.resize(end, 0);
        }
        if let Some(page) = contents.bytes.get_mut(start..end) {
            from.read(0, page);
        }
        Ok(())
    }

    fn create_shared(&self, len: u64) -> Result<FileId, OutOfFrames> {
        let file = self.create_memory(len);
        self.set_name(file, "/dev/zero (deleted)");
        Ok(file)
    }

    fn write_name(&self, file: FileId, to: &mut dyn fmt::Write) -> fmt::Result {
        match self.lock().get(&file.0) {
            Some(contents) => to.write_str(&contents.name),
            None => Ok(()),
        }
    }

    fn punched(&self, file: FileId, pages: Range<u64>) {
        if let Some(contents) = self.lock().get_mut(&file.0) {
            let byte = |page: u64| {
                let at = page.saturating_mul(PAGE_SIZE);
                usize::try_from(at).unwrap_or(usize::MAX).min(contents.bytes.len())
            };
            let (first, end) = (byte(pages.start), byte(pages.end));
            contents.bytes.get_mut(first..end).unwrap_or_default().fill(0);
        }
        self.punched.lock().unwrap_or_else(PoisonError::into_inner).push((file, pages));
    }

    fn is_memory(&self, file: FileId) -> bool {
        self.lock().get(&file.0).is_some_and(|contents| contents.is_memory)
    }
}

impl fmt::Debug for MemoryFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFiles").field("files", &self.lock().len()).finish_non_exhaustive()
    }
}
