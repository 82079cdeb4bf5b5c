//! Returns over the next n rows, for methods that learn by temporal differences.
//!
//! Row `t` holds the reward of its own action. With the discount `d`, over `m` rows,
//!
//! `return = r(t) + d r(t+1) + … + d^(m−1) r(t+m−1)`, and the value of row `t + m` enters with `d^m`.
//!
//! `m` is `n`, or fewer where the trajectory's last row comes before: a trajectory that was cut short ends with the row
//! to bootstrap from. A row whose column `terminated` is true ends the sum as well, and what follows it is worth nothing:
//! then the discount is 0.
use crate::error::{Error, Result};
use crate::layout::{Column, DType, Field, Layout};
use crate::ring::{Place, Rings};

/// Rows to sum over, and the discount of rewards.
#[derive(Clone, Copy, Debug)]
pub struct NStep {
    steps: u32,
    discount: f64,
}

/// What is told about the rows ahead of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ahead {
    steps: u32,
    discount: f64,
    terminated: Option<Field>,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// The discounted sum of rewards, with the types of what is summed and of the sum.
    Return { reward: Field, dtype: DType, sum: DType },
    /// `d^m`, or 0, in the type of the sum.
    Discount { sum: DType },
    /// `m`, an `i32`.
    Offset,
    /// A column of row `t + m`.
    Field(Field),
}

impl NStep {
    /// Sums of `steps` rewards.
    ///
    /// # Errors
    /// `Invalid` for no step, or a discount outside `[0, 1]`.
    pub fn new(steps: u32, discount: f64) -> Result<Self> {
        if steps == 0 || i32::try_from(steps).is_err() {
            return Err(Error::Invalid(format!("n_step: expected 1 to {}; got {steps}", i32::MAX)));
        }
        if !(0.0..=1.0).contains(&discount) {
            return Err(Error::Invalid(format!("discount: expected a number in [0, 1]; got {discount}")));
        }
        Ok(Self { steps, discount })
    }

    /// The output called `n_step_` and then `name`: `return`, `discount`, `offset`, or a column of the row that is
    /// reached. Described as a column.
    pub(crate) fn output(self, layout: &Layout, name: &str) -> Result<(Ahead, Column)> {
        let scalar = |name: &str| {
            let index = layout.find(name).filter(|&index| layout.columns()[index].shape.is_empty());
            index.map(|index| (layout.fields()[index], layout.columns()[index].dtype))
        };
        let reward = || {
            scalar("reward").ok_or_else(|| {
                Error::Invalid(format!(
                    "columns: n_step_{name} needs an extra \"reward\" of shape (); the buffer has none"
                ))
            })
        };
        let terminated = match layout.find("terminated").map(|_| scalar("terminated")) {
            None => None,
            Some(Some((field, DType::Bool))) => Some(field),
            Some(_) => {
                return Err(Error::Invalid(
                    "columns: for n_step the extra \"terminated\" must have the shape () and the dtype bool".into(),
                ));
            }
        };
        let sum = |dtype| if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let (what, dtype, shape) = match name {
            "return" => {
                let (reward, dtype) = reward()?;
                let sum = sum(dtype);
                (What::Return { reward, dtype, sum }, sum, vec![])
            }
            "discount" => {
                let sum = sum(reward()?.1);
                (What::Discount { sum }, sum, vec![])
            }
            "offset" => (What::Offset, DType::I32, vec![]),
            _ => {
                let index = layout.find(name).ok_or_else(|| {
                    Error::Invalid(format!(
                        "columns: after n_step_ expected return, discount, offset or a stored column; got {name:?}"
                    ))
                })?;
                let column = &layout.columns()[index];
                (What::Field(layout.fields()[index]), column.dtype, column.shape.clone())
            }
        };
        let ahead = Ahead { steps: self.steps, discount: self.discount, terminated, what };
        Ok((ahead, Column { name: format!("n_step_{name}"), dtype, shape }))
    }
}

impl Ahead {
    /// Bytes of one row of it.
    pub(crate) fn bytes(self) -> usize {
        match self.what {
            What::Return { sum, .. } | What::Discount { sum } => sum.size(),
            What::Offset => size_of::<i32>(),
            What::Field(field) => field.bytes,
        }
    }

    /// Writes it for this row. As all that is read from rings, it counts only if the row still lives afterwards.
    pub(crate) fn read(self, rings: &Rings, row: Place, bytes: &mut [u8]) {
        let (m, ended) = self.reach(rings, row);
        match self.what {
            What::Return { reward, dtype, sum: to } => {
                let (mut sum, mut weight) = (0.0, 1.0);
                for i in 0..m {
                    sum += weight * dtype.number(word(rings, rings.ahead(row, i), reward));
                    weight *= self.discount;
                }
                write(sum, to, bytes);
            }
            What::Discount { sum: to } => {
                let weight = (0..m).fold(1.0, |weight, _| weight * self.discount);
                write(if ended { 0.0 } else { weight }, to, bytes);
            }
            What::Offset => bytes.copy_from_slice(&m.to_ne_bytes()),
            What::Field(field) => rings.read(rings.record(rings.ahead(row, m)), field, bytes),
        }
    }

    /// How many rows are summed, and whether the last of them terminated.
    fn reach(self, rings: &Rings, row: Place) -> (u32, bool) {
        let most = self.steps.min(rings.later(row));
        let ends = |i: &u32| self.terminated.is_some_and(|field| word(rings, rings.ahead(row, *i), field)[0] != 0);
        match (0..most).find(ends) {
            Some(last) => (last + 1, true),
            None => (most, false),
        }
    }
}

/// A scalar field of a row, in the first of these bytes.
fn word(rings: &Rings, row: Place, field: Field) -> [u8; 8] {
    let mut bytes = [0; 8];
    rings.read(rings.record(row), field, &mut bytes[..field.bytes]);
    bytes
}

#[allow(clippy::cast_possible_truncation)] // Single precision is what is asked for.
fn write(number: f64, to: DType, bytes: &mut [u8]) {
    if to == DType::F64 {
        bytes.copy_from_slice(&number.to_ne_bytes());
    } else {
        bytes.copy_from_slice(&(number as f32).to_ne_bytes());
    }
}
