use super::harness::Test;
pub(crate) const TESTS: &[Test] = &[];
