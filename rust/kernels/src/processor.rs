//! One source for several processors.

/// A function `name` that takes `argument` by the best instructions this processor has: `generic`, compiled with
/// vectors of 16, of 8, and for any processor of the kind. Its parameter says whether products are fused with sums.
macro_rules! by_processor {
    ($(#[$doc:meta])* $name:ident, $generic:ident, $argument:ty) => {
        $(#[$doc])*
        pub(super) fn $name(given: $argument) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,fma")]
                fn sixteen(given: $argument) {
                    $generic::<true>(given);
                }

                #[target_feature(enable = "avx2,fma")]
                fn eight(given: $argument) {
                    $generic::<true>(given);
                }

                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    let wide = std::is_x86_feature_detected!("avx512f");
                    // SAFETY: the processor has what each is compiled for, as was just asked.
                    #[allow(unsafe_code)]
                    return unsafe { if wide { sixteen(given) } else { eight(given) } };
                }
            }
            $generic::<{ cfg!(target_arch = "aarch64") }>(given);
        }
    };
}
pub(crate) use by_processor;

/// `a b + c`, rounded once where the machine has that as one instruction (a call would be slow).
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
