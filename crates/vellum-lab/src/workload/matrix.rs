//! The product of two square matrices, by the definition.
//!
//! ```text
//!   c[i][j] = sum over k of a[i][k] * b[k][j]      b by columns: a stride of a row
//! ```
//!
//! With 512 columns a row of doubles fills a page, so that the inner loop touches a page of b at every
//! step. Only as many rows of c are computed as a trace of usual length can tell.

use super::tape::{Array, Tape};
use crate::experiment::Random;
use crate::trace::TraceFault;

/// Steps of the inner loop, about; each is an access to a and one to b.
const STEPS: u64 = 4_000_000;

/// The matrices, row by row, and how many rows of the product there are.
#[cfg_attr(not(test), allow(dead_code, reason = "what tests look at"))]
#[derive(Debug)]
pub(super) struct Product {
    pub(super) a: Array<f64>,
    pub(super) b: Array<f64>,
    pub(super) c: Array<f64>,
    pub(super) rows: usize,
}

/// Multiplies matrices of `n` rows, whose elements are small whole numbers. Making a and b is not
/// recorded.
pub(super) fn run(tape: &mut Tape, n: u64, seed: u64) -> Result<Product, TraceFault> {
    let size = usize::try_from(n).map_err(|_| TraceFault::Data { bytes: u64::MAX })?;
    let mut random = Random::new(seed);
    let count = size.saturating_mul(size);
    let a = tape.array(count, |_| random.below(16) as f64)?;
    let b = tape.array(count, |_| random.below(16) as f64)?;
    let c = tape.array(count, |_| 0.0)?;
    let rows = (STEPS / (n * n)).clamp(1, n) as usize;
    let mut product = Product { a, b, c, rows };
    for i in 0..rows {
        for j in 0..size {
            let mut sum = 0.0;
            for k in 0..size {
                sum += product.a.get(tape, i * size + k) * product.b.get(tape, k * size + j);
            }
            product.c.set(tape, i * size + j, sum);
        }
    }
    Ok(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Freivalds: (a b) x = a (b x), for a random x. Whole numbers, so that sums are exact.
    #[test]
    fn the_product_is_right() {
        for n in [8u64, 33, 200] {
            let mut tape = Tape::new(None);
            let Product { a, b, c, rows } = run(&mut tape, n, 5).unwrap();
            assert_eq!(rows, (STEPS / (n * n)).min(n) as usize);
            let size = n as usize;
            let mut random = Random::new(99);
            let x: Vec<f64> = (0..n).map(|_| random.below(100) as f64).collect();
            let times = |m: &Array<f64>, x: &[f64]| -> Vec<f64> {
                let rows = m.items().chunks_exact(size);
                rows.map(|row| row.iter().zip(x).map(|(m, x)| m * x).sum()).collect()
            };
            assert_eq!(times(&c, &x)[..rows], times(&a, &times(&b, &x))[..rows]);
            assert!(c.items().iter().any(|&c| c > 0.0));
        }
    }
}
