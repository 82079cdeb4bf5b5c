//! Euclidean distances of every row of one matrix from every row of another, and their slopes.
//!
//! From differences, so that near pairs are as exact as far ones: expanded into a matrix product, in float32 near pairs
//! are lost to cancellation. Scaled by a power of two, so that no square overflows or vanishes.

use crate::processor::{by_processor, multiply_add};
use crate::{Misfit, check};

/// x (n, width), y (m, width) -> distances (n, m).
pub struct Forward<'a> {
    /// Entries of a row.
    pub width: usize,
    /// (n, width)
    pub x: &'a [f32],
    /// (m, width)
    pub y: &'a [f32],
    /// (n, m), to be filled.
    pub distances: &'a mut [f32],
}

/// The gradients of x and y from that of the distances; a distance of 0 has the slope 0.
pub struct Backward<'a> {
    /// Entries of a row.
    pub width: usize,
    /// (n, width)
    pub x: &'a [f32],
    /// (m, width)
    pub y: &'a [f32],
    /// (n, m), as [`Forward`] filled it.
    pub distances: &'a [f32],
    /// (n, m)
    pub gradient: &'a [f32],
    /// (n, width), to be filled.
    pub of_x: &'a mut [f32],
    /// (m, width), to be filled.
    pub of_y: &'a mut [f32],
}

impl Forward<'_> {
    /// Fills the distances.
    ///
    /// # Errors
    /// [`Misfit`] where lengths do not go together; nothing is written then.
    pub fn run(self) -> Result<(), Misfit> {
        let [n, m] = rows(self.width, self.x, self.y)?;
        check("distances", self.distances, n * m)?;
        forward(self);
        Ok(())
    }
}

impl Backward<'_> {
    /// Fills the last two.
    ///
    /// # Errors
    /// [`Misfit`] where lengths do not go together; nothing is written then.
    pub fn run(self) -> Result<(), Misfit> {
        let [n, m] = rows(self.width, self.x, self.y)?;
        check("distances", self.distances, n * m)?;
        check("gradient", self.gradient, n * m)?;
        check("gradient of x", self.of_x, n * self.width)?;
        check("gradient of y", self.of_y, m * self.width)?;
        backward(self);
        Ok(())
    }
}

fn rows(width: usize, x: &[f32], y: &[f32]) -> Result<[usize; 2], Misfit> {
    let count = |matrix: &[f32]| matrix.len() / width.max(1);
    check("x", x, count(x) * width)?;
    check("y", y, count(y) * width)?;
    Ok([count(x), count(y)])
}

by_processor!(forward, forward_rows, Forward<'_>);
by_processor!(backward, backward_rows, Backward<'_>);

/// A power of two by which the largest entry is multiplied to lie near 1; 1 where there is no such number.
#[inline(always)]
fn scale(x: &[f32], y: &[f32]) -> f32 {
    /// Beyond it the inverse power would be no normal number.
    const MOST: u32 = 253;
    let largest = |rows: &[f32]| rows.iter().fold(0.0_f32, |most, entry| most.max(entry.abs()));
    let exponent = largest(x).max(largest(y)).to_bits() >> 23;
    if exponent == 0 || exponent > MOST { 1.0 } else { f32::from_bits((254 - exponent) << 23) }
}

#[inline(always)]
fn forward_rows<const FUSED: bool>(given: Forward<'_>) {
    let Forward { width, x, y, distances } = given;
    if width == 0 || y.is_empty() {
        distances.fill(0.0);
        return;
    }
    let m = y.len() / width;
    let scale = scale(x, y);
    // Entry by entry, so that a vector holds the same entry of several rows.
    let mut turned = vec![0.0; y.len()];
    for (j, row) in y.chunks_exact(width).enumerate() {
        for (r, entry) in row.iter().enumerate() {
            turned[r * m + j] = scale * entry;
        }
    }
    for (row, out) in x.chunks_exact(width).zip(distances.chunks_exact_mut(m)) {
        out.fill(0.0);
        for (entry, of_all) in row.iter().zip(turned.chunks_exact(m)) {
            let entry = scale * entry;
            for (sum, other) in out.iter_mut().zip(of_all) {
                let difference = other - entry;
                *sum = multiply_add::<FUSED>(difference, difference, *sum);
            }
        }
        for sum in out {
            *sum = sum.sqrt() / scale;
        }
    }
}

#[inline(always)]
fn backward_rows<const FUSED: bool>(given: Backward<'_>) {
    let Backward { width, x, y, distances, gradient, of_x, of_y } = given;
    of_x.fill(0.0);
    of_y.fill(0.0);
    if width == 0 || y.is_empty() {
        return;
    }
    let m = y.len() / width;
    let along = distances.chunks_exact(m).zip(gradient.chunks_exact(m));
    for ((x, of_x), (distances, gradient)) in x.chunks_exact(width).zip(of_x.chunks_exact_mut(width)).zip(along) {
        let others = y.chunks_exact(width).zip(of_y.chunks_exact_mut(width));
        for ((y, of_y), (&distance, &gradient)) in others.zip(distances.iter().zip(gradient)) {
            let slope = if distance == 0.0 { 0.0 } else { gradient / distance };
            for (((x, y), of_x), of_y) in x.iter().zip(y).zip(of_x.iter_mut()).zip(of_y) {
                let difference = x - y;
                *of_x = multiply_add::<FUSED>(slope, difference, *of_x);
                *of_y = multiply_add::<FUSED>(-slope, difference, *of_y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn forward_and_backward_are_the_formulas(
            (width, x, y, gradient) in (1_usize..70, 0_usize..6, 0_usize..6).prop_flat_map(|(width, n, m)| {
                let entries = |count: usize| prop::collection::vec(-2.0_f32..2.0, count);
                (Just(width), entries(n * width), entries(m * width), entries(n * m))
            }),
            power in -60..60,
            any_processor in any::<bool>(),
        ) {
            let size = f64::from(power).exp2();
            #[allow(clippy::cast_possible_truncation)]
            let sized = |rows: Vec<f32>| rows.into_iter().map(|e| (f64::from(e) * size) as f32).collect::<Vec<_>>();
            let (x, mut y) = (sized(x), sized(y));
            if let (Some(first), Some(same)) = (x.get(..width), y.get_mut(..width)) {
                same.copy_from_slice(first); // A pair that coincides.
            }
            let [n, m] = [x.len() / width, y.len() / width];
            let mut distances = vec![f32::NAN; n * m];
            let forward = Forward { width, x: &x, y: &y, distances: &mut distances };
            if any_processor { forward_rows::<false>(forward) } else { forward.run().unwrap() }
            let [mut of_x, mut of_y] = [vec![f32::NAN; x.len()], vec![f32::NAN; y.len()]];
            let backward = Backward {
                width, x: &x, y: &y, distances: &distances, gradient: &gradient, of_x: &mut of_x, of_y: &mut of_y,
            };
            if any_processor { backward_rows::<false>(backward) } else { backward.run().unwrap() }

            let [mut exact_x, mut exact_y] = [vec![0.0; x.len()], vec![0.0; y.len()]];
            for i in 0..n {
                for j in 0..m {
                    let difference = |r: usize| f64::from(x[i * width + r]) - f64::from(y[j * width + r]);
                    let exact = (0..width).map(|r| difference(r).powi(2)).sum::<f64>().sqrt();
                    let got = f64::from(distances[i * m + j]);
                    prop_assert!((got - exact).abs() <= 1e-6 * exact, "{} instead of {}", got, exact);
                    for r in 0..width {
                        let unit = if exact == 0.0 { 0.0 } else { difference(r) / exact };
                        exact_x[i * width + r] += f64::from(gradient[i * m + j]) * unit;
                        exact_y[j * width + r] -= f64::from(gradient[i * m + j]) * unit;
                    }
                }
            }
            for (got, exact) in of_x.iter().zip(exact_x).chain(of_y.iter().zip(exact_y)) {
                prop_assert!((f64::from(*got) - exact).abs() <= 1e-5, "{} instead of {}", got, exact);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut distances = [0.0; 2];
        Forward { width: 1, x: &[f32::NAN], y: &[1.0, f32::INFINITY], distances: &mut distances }.run().unwrap();
        assert!(distances.iter().all(|distance| distance.is_nan()));
    }

    #[test]
    fn lengths_that_do_not_go_together_are_refused() {
        let refused = Forward { width: 2, x: &[0.0; 4], y: &[0.0; 3], distances: &mut [7.0; 2] }.run();
        assert_eq!(refused, Err(Misfit { name: "y", got: 3, expected: 2 }));
    }
}
