//! The loops over rows, compiled twice: for processors with vectors of eight and fused products, and for any.

use crate::norm_swish::exp::sigmoid;
use crate::norm_swish::{Backward, Forward};
use crate::processor::{by_processor, multiply_add};

/// Partial sums of a row: enough to keep a processor's adders busy.
const SUMS: usize = 32;

by_processor!(
    /// See [`Forward`]; lengths fit.
    forward, forward_rows, Forward<'_>
);
by_processor!(
    /// See [`Backward`]; lengths fit.
    backward, backward_rows, Backward<'_>
);

/// The sum of f(x, y) over a row.
#[inline(always)]
fn sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<SUMS>(), y.as_chunks::<SUMS>());
    let mut sums = [0.0; SUMS];
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..SUMS {
            sums[i] += f(x[i], y[i]);
        }
    }
    let mut left = SUMS;
    while left > 1 {
        left /= 2;
        for i in 0..left {
            sums[i] += sums[i + left];
        }
    }
    x_rest.iter().zip(y_rest).fold(sums[0], |sum, (&x, &y)| sum + f(x, y))
}

#[allow(clippy::cast_precision_loss)] // A network's width is far below 2^24.
fn over(width: usize) -> f32 {
    1.0 / width as f32
}

#[inline(always)]
pub(super) fn forward_rows<const FUSED: bool>(given: Forward<'_>) {
    let Forward { dense, norm: [weight, bias], epsilon, moments: [means, deviations], sigmoid: sigmoids, swish } =
        given;
    let width = weight.len();
    if width == 0 {
        return;
    }
    let rows = dense.chunks_exact(width).zip(sigmoids.chunks_exact_mut(width)).zip(swish.chunks_exact_mut(width));
    for (((x, s), y), (mean_out, deviation_out)) in rows.zip(means.iter_mut().zip(deviations)) {
        let mean = sum(x, x, |x, _| x) * over(width);
        let variance = sum(x, x, |x, _| (x - mean) * (x - mean)) * over(width);
        let inverse = 1.0 / (variance + epsilon).sqrt();
        (*mean_out, *deviation_out) = (mean, inverse);
        let (weight, bias) = (&weight[..width], &bias[..width]);
        let (x, s, y) = (&x[..width], &mut s[..width], &mut y[..width]);
        for i in 0..width {
            let normed = multiply_add::<FUSED>((x[i] - mean) * inverse, weight[i], bias[i]);
            s[i] = sigmoid::<FUSED>(normed);
            y[i] = normed * s[i];
        }
    }
}

#[inline(always)]
pub(super) fn backward_rows<const FUSED: bool>(given: Backward<'_>) {
    let width = given.norm_weight.len();
    if width == 0 {
        return;
    }
    let Backward { gradient, scale, dense, norm_weight, moments: [means, deviations], sigmoid, swish, .. } = given;
    let mut learnt = given.learnt;
    for sums in learnt.iter_mut().flatten() {
        sums.fill(0.0);
    }
    let mut normed = vec![0.0; width];
    let normed = &mut normed[..width];
    let weight = &norm_weight[..width];
    let outs = given.dense_gradient.chunks_exact_mut(width);
    let given = gradient.chunks_exact(width).zip(dense.chunks_exact(width));
    let kept = sigmoid.chunks_exact(width).zip(swish.chunks_exact(width));
    let moments = means.iter().zip(deviations);
    for ((((g, x), (s, y)), out), (&mean, &inverse)) in given.zip(kept).zip(outs).zip(moments) {
        let (g, x, s, y, out) = (&g[..width], &x[..width], &s[..width], &y[..width], &mut out[..width]);
        // Of swish: s + y (1 - s).
        let through_swish = |i: usize| scale * g[i] * multiply_add::<FUSED>(y[i], 1.0 - s[i], s[i]);
        if let Some([d_weight, d_bias, _]) = &mut learnt {
            let (d_weight, d_bias) = (&mut d_weight[..width], &mut d_bias[..width]);
            for i in 0..width {
                let of_normed = through_swish(i);
                normed[i] = (x[i] - mean) * inverse;
                d_weight[i] = multiply_add::<FUSED>(of_normed, normed[i], d_weight[i]);
                d_bias[i] += of_normed;
                out[i] = of_normed * weight[i];
            }
        } else {
            for i in 0..width {
                normed[i] = (x[i] - mean) * inverse;
                out[i] = through_swish(i) * weight[i];
            }
        }
        let shift = sum(out, out, |g, _| g) * over(width);
        let slope = sum(out, normed, |g, n| g * n) * over(width);
        for i in 0..width {
            out[i] = inverse * multiply_add::<FUSED>(normed[i], -slope, out[i] - shift);
        }
        if let Some([_, _, d_dense_bias]) = &mut learnt {
            let d_dense_bias = &mut d_dense_bias[..width];
            for i in 0..width {
                d_dense_bias[i] += out[i];
            }
        }
    }
}
