//! A device that is a file of the host: a swap file, or a partition.

use crate::device::{BlockDevice, DeviceError};
use crate::header::PAGE;
use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vellum_core::FrameBytes;

/// A file, by pages; what its end leaves of a page is not used.
#[derive(Debug)]
pub struct FileDevice {
    file: Mutex<File>,
    pages: u64,
}

impl FileDevice {
    /// A file that exists; it is not made longer.
    ///
    /// # Errors
    ///
    /// The host's: it cannot be opened for reading and writing, or is not seekable.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// A new file of so many pages, which the host may make sparse.
    ///
    /// # Errors
    ///
    /// The host's: it exists already, or cannot be made.
    pub fn create(path: impl AsRef<Path>, pages: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let bytes = pages.checked_mul(PAGE as u64).ok_or(std::io::ErrorKind::FileTooLarge)?;
        file.set_len(bytes)?;
        Self::of(file)
    }

    fn of(mut file: File) -> Result<Self> {
        // A partition has no length but its end.
        let pages = file.seek(SeekFrom::End(0))? / PAGE as u64;
        Ok(Self { file: Mutex::new(file), pages })
    }

    /// The file, at the begin of a page.
    fn at(&self, page: u64) -> core::result::Result<MutexGuard<'_, File>, DeviceError> {
        if page >= self.pages {
            return Err(DeviceError::OutOfRange(page));
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(page * PAGE as u64)).map_err(|_| DeviceError::Io)?;
        Ok(file)
    }
}

impl BlockDevice for FileDevice {
    fn pages(&self) -> u64 {
        self.pages
    }

    fn read(&self, page: u64, to: FrameBytes<'_>) -> core::result::Result<(), DeviceError> {
        let mut bytes = [0; PAGE];
        self.at(page)?.read_exact(&mut bytes).map_err(|_| DeviceError::Io)?;
        to.write(0, &bytes);
        Ok(())
    }

    fn write(&self, page: u64, from: FrameBytes<'_>) -> core::result::Result<(), DeviceError> {
        let mut bytes = [0; PAGE];
        from.read(0, &mut bytes);
        self.at(page)?.write_all(&bytes).map_err(|_| DeviceError::Io)
    }
}
