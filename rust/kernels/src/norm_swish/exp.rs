//! The sigmoid, in operations that a compiler turns into vectors: no branch, no table, no call.

use crate::processor::multiply_add;

/// exp(x) for |x| <= 87; beyond that exp(87) or exp(-87).
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, and exp(r) by its Taylor polynomial, whose remainder is below 2e-9.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    /// ln 2 in two parts: products of the first with n are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// Adding it rounds to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // Not `clamp`: these are one instruction each, and leave what is no number.
    let x = if x > 87.0 { 87.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FUSED>(n, -LN_2[1], multiply_add::<FUSED>(n, -LN_2[0], x));
    let mut polynomial = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = multiply_add::<FUSED>(polynomial, r, coefficient);
    }
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    polynomial * f32::from_bits(power)
}

/// 1 / (1 + exp(-x)).
#[inline(always)]
pub(crate) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sigmoid_is_right_to_two_units_in_the_last_place() {
        for step in -870_000_i32..=870_000 {
            let x = f64::from(step) * 1e-4;
            #[allow(clippy::cast_possible_truncation)]
            let x32 = x as f32;
            let exact = 1.0 / (1.0 + (-f64::from(x32)).exp());
            for got in [sigmoid::<true>(x32), sigmoid::<false>(x32)] {
                let error = (f64::from(got) - exact).abs();
                assert!(error <= 2.5 * f64::from(f32::EPSILON) * exact, "sigmoid({x32}) = {got}, exactly {exact}");
            }
        }
    }

    #[test]
    fn far_out_and_of_no_number_it_is_what_it_should_be() {
        for x in [100.0, 1e30, f32::INFINITY] {
            assert!((sigmoid::<true>(x) - 1.0).abs() < 1e-6);
            assert!(sigmoid::<true>(-x).abs() < 1e-36);
        }
        assert!(sigmoid::<true>(f32::NAN).is_nan());
        assert!(sigmoid::<false>(f32::NAN).is_nan());
    }
}
