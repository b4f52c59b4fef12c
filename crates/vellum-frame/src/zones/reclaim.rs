//! [`Reclaim`]: what is called when zones run short.
//!
//! ```text
//!   free
//!    low  - - \- - - - - - - - - - - - - - /- -    wake: every request that finds all its zones below
//!              \                          /        (cheap, from anywhere; frees in the background)
//!    min  - - - \- - - - - - -/\- - - - -/- - -    reclaim: a request that cannot be served at all
//!                \___________/  \_______/          (frees here and now; the request waits)
//! ```
//!
//! No lock of this crate is held during either call, since it has none.

use super::Request;

/// Frees frames when a set of zones runs short. `()` frees nothing.
///
/// Both methods may call the zones. What they allocate themselves they ask for with
/// [`Urgency::Emergency`](super::Urgency::Emergency), which calls neither. Any other request from
/// within a callback is not wrong, but may call it again, and so on: [`AT_ONCE`](Self::AT_ONCE)
/// bounds how deep.
pub trait Reclaim {
    /// How many calls of each method there may be at one time, on all CPUs and within each other. A
    /// request that would make one more goes on without.
    const AT_ONCE: u32 = 8;

    /// Zone `zone` is below its low mark, and so are all others that some request could use. Free
    /// frames soon, until [`Zones::shortage`](super::Zones::shortage) is 0.
    ///
    /// Called before that request is served, every time; from wherever it was made, interrupt
    /// handlers included: set a flag, wake a thread, return.
    fn wake(&self, zone: usize) {
        let _ = zone;
    }

    /// Free frames that `request` could use, now, and say how many; 0 to give up.
    ///
    /// Called up to 16 times for one request, as long as it says that it freed some and that was
    /// not enough: `attempt` counts from 0. Only for usual requests, so never from where waiting is
    /// forbidden, unless that is where somebody made one.
    fn reclaim(&self, request: &Request, attempt: u32) -> u64;
}

impl Reclaim for () {
    fn reclaim(&self, _request: &Request, _attempt: u32) -> u64 {
        0
    }
}

impl<R: Reclaim + ?Sized> Reclaim for &R {
    const AT_ONCE: u32 = R::AT_ONCE;

    fn wake(&self, zone: usize) {
        R::wake(self, zone);
    }

    fn reclaim(&self, request: &Request, attempt: u32) -> u64 {
        R::reclaim(self, request, attempt)
    }
}
