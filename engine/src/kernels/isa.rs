//! Which instructions the processor has, asked once.

use std::sync::OnceLock;

/// A family of kernels, from the plainest to the fastest. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the specification, and what runs where nothing better is known.
    Scalar,
    /// WebAssembly SIMD with the relaxed integer dot product.
    Wasm,
    /// aarch64 with nothing but NEON.
    Neon,
    /// aarch64 with the dot product.
    Dotprod,
    /// aarch64 with the dot product and the matrix product of 8-bit integers.
    I8mm,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 and VNNI.
    Avx512,
}

impl Isa {
    /// The best family for this processor. `WAFER_ISA` (scalar, avx2, neon, dotprod) chooses a plainer one.
    pub fn current() -> Self {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let best = Self::available().pop().unwrap_or(Self::Scalar);
            let asked = std::env::var("WAFER_ISA").ok();
            let asked = asked.and_then(|name| Self::available().into_iter().find(|isa| isa.name() == name));
            asked.unwrap_or(best)
        })
    }

    /// All families that this processor can run, plainest first.
    pub fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar];
        #[cfg(target_arch = "wasm32")]
        available.push(Self::Wasm);
        #[cfg(target_arch = "aarch64")]
        {
            available.push(Self::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                available.push(Self::Dotprod);
                if std::arch::is_aarch64_feature_detected!("i8mm") {
                    available.push(Self::I8mm);
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
                available.push(Self::Avx2);
                if std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
                {
                    available.push(Self::Avx512);
                }
            }
        }
        available
    }

    /// The name in `WAFER_ISA` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Wasm => "wasm-simd",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Compiles a function of plain loops twice, for the baseline processor and for AVX2, and picks at run time.
/// The results are the same: vectors only compute several lanes at once, and Rust never fuses or reorders.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if $crate::kernels::Isa::current() >= $crate::kernels::Isa::Avx2 {
                    // SAFETY: only a processor with AVX2 gets this family or a faster one.
                    #[allow(unsafe_code, reason = "calling code compiled for detected instructions")]
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use multiversion;
