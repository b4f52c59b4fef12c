//! Vellum's address space as a subject, over host RAM and any page table of this repository.
//!
//! ```text
//!   run(sequence)
//!     |  tables, engine, a fresh file, a space          all in the one RAM of the subject
//!     |  operations; a fork goes on in the child        run::Run
//!     |  looks: regions, and what the table has         look
//!     '- everything is dropped: every frame must be back
//! ```
//!
//! The space is asked through the calls that a kernel would make for a program. What a program does
//! itself, an access, is `read` and `write` of the space.

mod look;
mod run;

use crate::op::Sequence;
use crate::subject::{Subject, SubjectError};
use crate::trace::Trace;
use core::marker::PhantomData;
use std::rc::Rc;
use vellum_core::OutOfFrames;
use vellum_fault::host::Ram;
use vellum_fault::host::designs::Design;

/// Frames of the RAM: enough for two forks of a full arena, the file, and the tables.
const FRAMES: usize = 2048;

/// An address space over the design `D`.
#[derive(Debug)]
pub struct Ours<D> {
    ram: Rc<Ram>,
    design: PhantomData<D>,
}

impl<D: Design> Ours<D> {
    /// A subject with RAM of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::over(Rc::new(Ram::new(FRAMES)))
    }

    /// A subject that takes turns with others in one RAM. What a process has touched its children have to
    /// be made with: a RAM for each design would double what a sequence on Linux costs.
    #[must_use]
    pub const fn over(ram: Rc<Ram>) -> Self {
        Self { ram, design: PhantomData }
    }
}

impl<D: Design> Default for Ours<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Design> Subject for Ours<D> {
    fn name(&self) -> &str {
        D::NAME
    }

    fn run(&mut self, sequence: &Sequence) -> Result<Trace, SubjectError> {
        sequence.check().map_err(|(index, e)| SubjectError::Refused(index, e))?;
        let before = self.ram.frames_in_use();
        let trace = run::all::<D>(&self.ram, sequence);
        match self.ram.frames_in_use() {
            after if after == before => trace,
            after => Err(SubjectError::Lost(after.abs_diff(before))),
        }
    }
}

/// The RAM has no frame left: a sequence never needs so many.
fn no_frames(_: OutOfFrames) -> SubjectError {
    SubjectError::Host("the RAM has no frame left".to_owned())
}

/// A subject by its design's name, as `cargo xtask compare` has it.
#[must_use]
pub fn by_name(name: &str) -> Option<Box<dyn Subject>> {
    macro_rules! design {
        ($_:ident, $design:ty) => {
            if name == <$design>::NAME {
                return Some(Box::new(Ours::<$design>::new()));
            }
        };
    }
    vellum_fault::for_each_design!(design);
    None
}

/// A subject for each design, in one RAM.
#[must_use]
pub fn all() -> Vec<Box<dyn Subject>> {
    let ram = Rc::new(Ram::new(FRAMES));
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    macro_rules! design {
        ($_:ident, $design:ty) => {
            subjects.push(Box::new(Ours::<$design>::over(Rc::clone(&ram))));
        };
    }
    vellum_fault::for_each_design!(design);
    subjects
}

/// The names of all designs.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! design {
        ($_:ident, $design:ty) => {
            names.push(<$design>::NAME);
        };
    }
    vellum_fault::for_each_design!(design);
    names
}
