//! Taking everything out of a range.
//!
//! ```text
//!   range             |<------------------->|
//!   regions       [ a | a ]  [ b ]   [ c ]  [ d ]         a region that reaches beyond is cut
//!   stays         [ a ]                     [ d ]         and keeps what lies outside
//!   taken               a      b       c
//! ```

use super::descend::Path;
use super::node::Node;
use super::{PageRange, VmaMap, VmaMapError};
use vellum_core::{Memory, PAGE_SHIFT, VirtAddr};

impl<V: Copy, M: Memory> VmaMap<V, M> {
    /// Takes out what lies in `range`, and tells `taken` of each piece, ascending; how many those were.
    /// Regions that reach beyond are cut first: `cut` is given the range and the value of one, which
    /// becomes that of what lies below the address, and returns the value of the rest.
    ///
    /// O(log n) for every 16th region; takes memory only where one region reaches beyond both ends.
    ///
    /// # Errors
    ///
    /// [`VmaMapError::OutOfFrames`], in that one case; neither closure has been called then.
    pub fn clear_range(
        &mut self,
        range: PageRange,
        mut cut: impl FnMut(PageRange, &mut V, VirtAddr) -> V,
        mut taken: impl FnMut(PageRange, V),
    ) -> Result<u64, VmaMapError> {
        let (first, end) = (range.first_page(), range.end_page());
        // Only where a region reaches beyond it, so that it is below 2^64.
        let end_va = VirtAddr::new(end << PAGE_SHIFT);
        let mut count = 0;
        let mut path = Path::new();
        if self.locate(first, &mut path).is_none() {
            return Ok(count);
        }
        let reaching = path.region.filter(|(found, _)| found.first_page() < first);
        if let Some((found, mut below)) = reaching {
            let reaches_beyond = found.end_page() > end;
            if reaches_beyond {
                self.make_room(&path)?;
            }
            let mut value = cut(found, &mut below, range.start());
            let above = reaches_beyond.then(|| {
                let rest = PageRange::raw(first, found.end_page());
                (PageRange::raw(end, found.end_page()), cut(rest, &mut value, end_va))
            });
            let outside = PageRange::raw(found.first_page(), first);
            match above {
                None => self.set(&path, outside, below),
                Some((beyond, above)) => {
                    self.set_leaf(&path, outside, below);
                    path.step_behind();
                    self.insert_at(&path, beyond, above);
                }
            }
            taken(PageRange::raw(first, found.end_page().min(end)), value);
            count += 1;
        }
        count += self.take_whole(range, &mut taken);
        let mut path = Path::new();
        if self.locate(first, &mut path).is_none() {
            return Ok(count);
        }
        let reaching = path.region.filter(|(found, _)| found.first_page() < end);
        if let Some((found, mut value)) = reaching {
            let above = cut(found, &mut value, end_va);
            self.set(&path, PageRange::raw(end, found.end_page()), above);
            taken(PageRange::raw(found.first_page(), end), value);
            count += 1;
        }
        Ok(count)
    }

    /// Takes out all regions that lie in `range` whole; none reaches into it from below.
    fn take_whole(&mut self, range: PageRange, taken: &mut impl FnMut(PageRange, V)) -> u64 {
        let mut count = 0;
        loop {
            let mut path = Path::new();
            if self.locate(range.first_page(), &mut path).is_none() {
                return count;
            }
            let whole = self.leaves.with(path.leaf, |leaf| {
                let ends = (path.at..leaf.len()).map(|at| leaf.at(at).0.end_page());
                ends.take_while(|&end| end <= range.end_page()).count()
            });
            let Some(whole @ 1..) = whole else { return count };
            for at in path.at..path.at + whole {
                if let Some(Some((found, value))) = self.leaves.with(path.leaf, |leaf| leaf.get(at))
                {
                    taken(found, value);
                }
            }
            self.take(&path, whole);
            count += whole as u64;
        }
    }
}
