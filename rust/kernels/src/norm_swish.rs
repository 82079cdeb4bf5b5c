//! What a residual network's layer does behind its matrix product: `LayerNorm`, then swish.
//!
//! `y = n sigmoid(n)` with `n = w (x - mean) / deviation + b`. A row is summed in 32 partial sums.

mod exp;
mod rows;

use crate::{Misfit, check};

/// Behind the matrix product: `x` (rows, width) to the last four, (rows,) and (rows, width) each.
pub struct Forward<'a> {
    /// The product's result.
    pub dense: &'a [f32],
    /// `LayerNorm`'s weight and bias, (width,) each.
    pub norm: [&'a [f32]; 2],
    /// What `LayerNorm` adds to the variance.
    pub epsilon: f32,
    /// Mean and inverse deviation of every row, (rows,) each.
    pub moments: [&'a mut [f32]; 2],
    /// Of the normalised.
    pub sigmoid: &'a mut [f32],
    /// The result.
    pub swish: &'a mut [f32],
}

/// From the gradient of `swish` to that of `dense`, by what [`Forward`] left behind.
pub struct Backward<'a> {
    /// Of `scale * swish`.
    pub gradient: &'a [f32],
    /// By which the result of the layer was multiplied.
    pub scale: f32,
    /// As given to and left by [`Forward`].
    pub dense: &'a [f32],
    /// Its `LayerNorm`'s weight, (width,).
    pub norm_weight: &'a [f32],
    /// As left by [`Forward`].
    pub moments: [&'a [f32]; 2],
    /// As left by [`Forward`].
    pub sigmoid: &'a [f32],
    /// As left by [`Forward`].
    pub swish: &'a [f32],
    /// The gradient of `dense`.
    pub dense_gradient: &'a mut [f32],
    /// The gradients of `LayerNorm`'s weight and bias, and of the bias that the product added, if they are wanted:
    /// (width,) each.
    pub learnt: Option<[&'a mut [f32]; 3]>,
}

impl Forward<'_> {
    /// Fills the last three.
    ///
    /// # Errors
    /// [`Misfit`] where lengths do not go together; nothing is written then.
    pub fn run(self) -> Result<(), Misfit> {
        let (width, rows) = (self.norm[0].len(), self.moments[0].len());
        check("norm bias", self.norm[1], width)?;
        check("inverse deviation", self.moments[1], rows)?;
        check("dense", self.dense, rows * width)?;
        check("sigmoid", self.sigmoid, rows * width)?;
        check("swish", self.swish, rows * width)?;
        rows::forward(self);
        Ok(())
    }
}

impl Backward<'_> {
    /// Fills the last two.
    ///
    /// # Errors
    /// [`Misfit`] where lengths do not go together; nothing is written then.
    pub fn run(self) -> Result<(), Misfit> {
        let (width, rows) = (self.norm_weight.len(), self.moments[0].len());
        check("inverse deviation", self.moments[1], rows)?;
        check("gradient", self.gradient, rows * width)?;
        check("dense", self.dense, rows * width)?;
        check("sigmoid", self.sigmoid, rows * width)?;
        check("swish", self.swish, rows * width)?;
        check("dense gradient", self.dense_gradient, rows * width)?;
        for learnt in self.learnt.iter().flatten() {
            check("learnt", learnt, width)?;
        }
        rows::backward(self);
        Ok(())
    }
}

#[cfg(test)]
mod oracle;
