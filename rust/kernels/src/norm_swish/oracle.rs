//! The same in float64, formula by formula, entry by entry.

use proptest::prelude::*;

use crate::Misfit;
use crate::norm_swish::{Backward, Forward, rows};

const EPSILON: f64 = 1e-6;

/// A layer's input, its `LayerNorm`, and the gradient of its output.
#[derive(Debug, Clone)]
struct Layer {
    rows: usize,
    dense: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    gradient: Vec<f32>,
    scale: f32,
}

fn layers() -> impl Strategy<Value = Layer> {
    (0_usize..5, 2_usize..100).prop_flat_map(|(rows, width)| {
        let entries = |number: usize, size: f32| prop::collection::vec(-size..size, number);
        let all = (
            entries(rows * width, 3.0),
            entries(width, 2.0),
            entries(width, 2.0),
            entries(rows * width, 1.0),
            0.1_f32..2.0,
        );
        all.prop_map(move |(dense, weight, bias, gradient, scale)| Layer { rows, dense, weight, bias, gradient, scale })
    })
}

/// Of one row: normalised input, output of `LayerNorm`, inverse deviation.
fn norm(layer: &Layer, row: usize) -> (Vec<f64>, Vec<f64>, f64) {
    let width = layer.weight.len();
    let x: Vec<f64> = layer.dense[row * width..][..width].iter().map(|&x| f64::from(x)).collect();
    let count = f64::from(u32::try_from(width).unwrap());
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    let inverse = (variance + EPSILON).sqrt().recip();
    let normed: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
    let affine = |(i, n): (usize, &f64)| f64::from(layer.weight[i]) * n + f64::from(layer.bias[i]);
    let output = normed.iter().enumerate().map(affine).collect();
    (normed, output, inverse)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The gradient of the sum of `scale * gradient * swish`: by the inputs, and by weight, bias and the inputs' bias.
fn gradients(layer: &Layer) -> (Vec<f64>, [Vec<f64>; 3]) {
    let width = layer.weight.len();
    let count = f64::from(u32::try_from(width).unwrap());
    let (mut of_dense, mut learnt) = (Vec::new(), [0, 1, 2].map(|_| vec![0.0; width]));
    for row in 0..layer.rows {
        let (normed, output, inverse) = norm(layer, row);
        let of_output: Vec<f64> = (0..width)
            .map(|i| {
                let s = sigmoid(output[i]);
                f64::from(layer.scale) * f64::from(layer.gradient[row * width + i]) * (s + output[i] * s * (1.0 - s))
            })
            .collect();
        for i in 0..width {
            learnt[0][i] += of_output[i] * normed[i];
            learnt[1][i] += of_output[i];
        }
        // d normed_j / d x_i = inverse (delta_ij - 1/W - normed_i normed_j / W).
        for i in 0..width {
            let mut slope = 0.0;
            for j in 0..width {
                let same = if i == j { 1.0 } else { 0.0 };
                let through = inverse * (same - 1.0 / count - normed[i] * normed[j] / count);
                slope += of_output[j] * f64::from(layer.weight[j]) * through;
            }
            learnt[2][i] += slope;
            of_dense.push(slope);
        }
    }
    (of_dense, learnt)
}

fn near(got: &[f32], exact: &[f64], size: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), exact.len());
    for (&got, &exact) in got.iter().zip(exact) {
        prop_assert!((f64::from(got) - exact).abs() <= 2e-5 * size, "{} instead of {}", got, exact);
    }
    Ok(())
}

proptest! {
    #[test]
    fn forward_and_backward_are_the_formulas(layer in layers(), any_processor in any::<bool>()) {
        let (entries, width) = (layer.dense.len(), layer.weight.len());
        let [mut means, mut inverses] = [vec![0.0; layer.rows], vec![0.0; layer.rows]];
        let [mut sigmoids, mut swish] = [vec![f32::NAN; entries], vec![f32::NAN; entries]];
        let forward = Forward {
            dense: &layer.dense, norm: [&layer.weight, &layer.bias], epsilon: 1e-6,
            moments: [&mut means, &mut inverses], sigmoid: &mut sigmoids, swish: &mut swish,
        };
        if any_processor { rows::forward_rows::<false>(forward) } else { forward.run().unwrap() }
        let outputs: Vec<f64> = (0..layer.rows).flat_map(|row| norm(&layer, row).1).collect();
        near(&sigmoids, &outputs.iter().map(|&x| sigmoid(x)).collect::<Vec<_>>(), 1.0)?;
        near(&swish, &outputs.iter().map(|&x| x * sigmoid(x)).collect::<Vec<_>>(), 10.0)?;

        let (of_dense, of_learnt) = gradients(&layer);
        let size = inverses.iter().fold(1.0, |most: f32, &inverse| most.max(inverse));
        for learn in [true, false] {
            let mut dense_gradient = vec![f32::NAN; entries];
            let [mut d_weight, mut d_bias, mut d_dense_bias] = [0, 1, 2].map(|_| vec![f32::NAN; width]);
            let backward = Backward {
                gradient: &layer.gradient, scale: layer.scale, dense: &layer.dense, norm_weight: &layer.weight,
                moments: [&means, &inverses], sigmoid: &sigmoids, swish: &swish, dense_gradient: &mut dense_gradient,
                learnt: learn.then_some([&mut d_weight, &mut d_bias, &mut d_dense_bias]),
            };
            if any_processor { rows::backward_rows::<false>(backward) } else { backward.run().unwrap() }
            near(&dense_gradient, &of_dense, 10.0 * f64::from(size))?;
            if learn {
                near(&d_weight, &of_learnt[0], 100.0)?;
                near(&d_bias, &of_learnt[1], 100.0)?;
                near(&d_dense_bias, &of_learnt[2], 100.0 * f64::from(size))?;
            }
        }
    }
}

#[test]
fn lengths_that_do_not_go_together_are_refused() {
    let [mut means, mut inverses, mut sigmoids, mut swish] = [vec![0.0; 2], vec![0.0; 2], vec![0.0; 6], vec![7.0; 5]];
    let refused = Forward {
        dense: &[0.0; 6],
        norm: [&[1.0; 3], &[0.0; 3]],
        epsilon: 1e-6,
        moments: [&mut means, &mut inverses],
        sigmoid: &mut sigmoids,
        swish: &mut swish,
    };
    assert_eq!(refused.run(), Err(Misfit { name: "swish", got: 5, expected: 6 }));
    assert_eq!(swish, [7.0; 5]);
}
