//! Values of tensors as numbers: statistics of one, and of what changed between two. Values arrive in pieces of any
//! length; statistics are made over blocks of 1024 values, so that how they were cut does not change a bit of them.
//!
//! NaN and infinities are counted and take part in nothing else. Sums are f64: means, norms and moments are exact
//! to about 1e-12 of their size; integers past 2^53 are rounded, except in the count of changed values, which is of
//! bits. What is beyond f64's range is `None`. Buffers are wiped; what leaves is statistics alone.
#![allow(clippy::cast_precision_loss)] // said above
#![warn(clippy::indexing_slicing)]

use zeroize::Zeroizing;

/// Values to a block.
const BLOCK: usize = 1024;

/// Element types whose values are numbers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// Only bits are compared, in elements of so many bytes.
    Bits(usize),
}

impl Element {
    fn of(dtype: &str) -> Self {
        match dtype {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            "C64" => Self::Bits(8),
            _ => Self::Bits(1),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => 1,
            Self::Bits(n) => n,
        }
    }

    /// Appends the values of `raw`, whole elements.
    fn decode(self, raw: &[u8], out: &mut Vec<f64>) {
        match self {
            Self::F64 => each(raw, out, f64::from_le_bytes),
            Self::F32 => each(raw, out, |b| f64::from(f32::from_le_bytes(b))),
            Self::F16 => each(raw, out, |b| small_float(u32::from(u16::from_le_bytes(b)), 5, 10, true)),
            Self::BF16 => each(raw, out, |b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
            Self::F8E4M3 => each(raw, out, |[b]: [u8; 1]| small_float(u32::from(b), 4, 3, false)),
            Self::F8E5M2 => each(raw, out, |[b]: [u8; 1]| small_float(u32::from(b), 5, 2, true)),
            Self::I64 => each(raw, out, |b| i64::from_le_bytes(b) as f64),
            Self::I32 => each(raw, out, |b| f64::from(i32::from_le_bytes(b))),
            Self::I16 => each(raw, out, |b| f64::from(i16::from_le_bytes(b))),
            Self::I8 => each(raw, out, |b| f64::from(i8::from_le_bytes(b))),
            Self::U64 => each(raw, out, |b| u64::from_le_bytes(b) as f64),
            Self::U32 => each(raw, out, |b| f64::from(u32::from_le_bytes(b))),
            Self::U16 => each(raw, out, |b| f64::from(u16::from_le_bytes(b))),
            Self::U8 => each(raw, out, |[b]: [u8; 1]| f64::from(b)),
            Self::Bool => each(raw, out, |[b]: [u8; 1]| f64::from(u8::from(b != 0))),
            Self::Bits(_) => {}
        }
    }
}

/// Whether a type's values are floating point.
pub(super) fn is_float(dtype: &str) -> bool {
    use Element::{BF16, F8E4M3, F8E5M2, F16, F32, F64};
    matches!(Element::of(dtype), F64 | F32 | F16 | BF16 | F8E4M3 | F8E5M2)
}

fn each<const N: usize>(raw: &[u8], out: &mut Vec<f64>, value: impl Fn([u8; N]) -> f64) {
    out.extend(raw.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)));
}

/// A float of `1 + exponent + mantissa` bits. `ieee`: the highest exponent is infinities and NaN; without it, as in
/// E4M3, only all ones is NaN.
fn small_float(bits: u32, exponent: u32, mantissa: u32, ieee: bool) -> f64 {
    let ones = |n: u32| (1_u32 << n) - 1;
    let (m, e) = (bits & ones(mantissa), (bits >> mantissa) & ones(exponent));
    let sign = if (bits >> (mantissa + exponent)) & 1 == 1 { -1.0 } else { 1.0 };
    let top = e == ones(exponent);
    if top && ieee {
        return if m == 0 { sign * f64::INFINITY } else { f64::NAN };
    }
    if top && m == ones(mantissa) {
        return f64::NAN;
    }
    // (m or 1.m) * 2^(e - bias), with the mantissa as an integer
    let (m, e) = if e == 0 { (m, 1) } else { (m | (1 << mantissa), e) };
    let power = u64::from(1023 + e - ones(exponent - 1) - mantissa) << 52;
    sign * f64::from(m) * f64::from_bits(power)
}

/// What the values of a tensor are like. All but the counts are of finite values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Statistics {
    /// Values.
    pub count: u64,
    /// NaN among them.
    pub nan: u64,
    /// Infinities among them.
    pub inf: u64,
    /// The least; `None` without finite values.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// The mean.
    pub mean: Option<f64>,
    /// Standard deviation, of the values as the whole population.
    pub std: Option<f64>,
    /// L2 norm: the root of the sum of squares.
    pub norm: Option<f64>,
    /// Fourth central moment over the squared second: 3 for a normal distribution, more with heavier tails.
    pub kurtosis: Option<f64>,
}

/// What differs between two tensors of one type and shape.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    /// Values.
    pub count: u64,
    /// Values whose bits differ.
    pub changed: u64,
    /// Values that are NaN and were not.
    pub new_nan: u64,
    /// Values that are infinite and were not.
    pub new_inf: u64,
    /// L2 norm of the difference, where both are finite.
    pub norm: Option<f64>,
    /// Largest absolute difference, where both are finite.
    pub largest: Option<f64>,
}

impl Change {
    /// Share of the values whose bits differ, 0 to 1; 0 of an empty tensor.
    pub fn share(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.changed as f64 / self.count as f64 }
    }
}

/// Two tensors of one type and shape, side by side.
pub struct Pair {
    element: Element,
    raw: [Zeroizing<Vec<u8>>; 2],
    values: [Zeroizing<Vec<f64>>; 2],
    moments: [Moments; 2],
    change: Change,
    squares: Sum,
    largest: f64,
}

impl Pair {
    /// Of this type, as safetensors writes it.
    pub fn new(dtype: &str) -> Self {
        let element = Element::of(dtype);
        let raw = || Zeroizing::new(Vec::with_capacity(BLOCK * element.bytes()));
        let values = || Zeroizing::new(Vec::with_capacity(BLOCK));
        Self {
            element,
            raw: [raw(), raw()],
            values: [values(), values()],
            moments: [Moments::default(), Moments::default()],
            change: Change::default(),
            squares: Sum::default(),
            largest: 0.0,
        }
    }

    /// The next bytes of both, equally many, cut anywhere.
    pub fn push(&mut self, mut a: &[u8], mut b: &[u8]) {
        debug_assert_eq!(a.len(), b.len());
        while !a.is_empty() {
            let [raw_a, raw_b] = &mut self.raw;
            let room = (BLOCK * self.element.bytes() - raw_a.len()).min(a.len()).min(b.len());
            let (now_a, later_a) = a.split_at(room);
            let (now_b, later_b) = b.split_at(room);
            raw_a.extend_from_slice(now_a);
            raw_b.extend_from_slice(now_b);
            (a, b) = (later_a, later_b);
            if self.raw.first().is_some_and(|raw| raw.len() == BLOCK * self.element.bytes()) {
                self.block();
            }
        }
    }

    fn block(&mut self) {
        let Self { element, raw, values, moments, change, squares, largest } = self;
        for ((raw, values), moments) in raw.iter().zip(values.iter_mut()).zip(moments.iter_mut()) {
            values.clear();
            element.decode(raw, values);
            moments.block(values);
        }
        let ([raw_a, raw_b], [a, b]) = (&mut *raw, &*values);
        let width = element.bytes();
        change.count += (raw_a.len() / width) as u64;
        if raw_a != raw_b {
            let pairs = raw_a.chunks_exact(width).zip(raw_b.chunks_exact(width));
            change.changed += pairs.filter(|(a, b)| a != b).count() as u64;
            let mut of_block = 0.0;
            for (a, b) in a.iter().zip(b.iter()) {
                let difference = b - a;
                change.new_nan += u64::from(b.is_nan() && !a.is_nan());
                change.new_inf += u64::from(b.is_infinite() && !a.is_infinite());
                if a.is_finite() && b.is_finite() {
                    of_block += difference * difference;
                    *largest = largest.max(difference.abs());
                }
            }
            squares.add(of_block);
        }
        raw_a.clear();
        raw_b.clear();
    }

    /// Statistics of both, and of the difference.
    pub fn finish(mut self) -> (Statistics, Statistics, Change) {
        self.block();
        let numbers = !matches!(self.element, Element::Bits(_));
        let finite = |x: f64| Some(x).filter(|x| numbers && x.is_finite());
        let change = Change { norm: finite(self.squares.value().sqrt()), largest: finite(self.largest), ..self.change };
        let [a, b] = &self.moments;
        let with_count = |m: &Moments| Statistics { count: change.count, ..m.statistics() };
        (with_count(a), with_count(b), change)
    }
}

/// One tensor alone: added, removed, or of another type or shape than its counterpart.
pub struct Single(Pair);

impl Single {
    /// Of this type.
    pub fn new(dtype: &str) -> Self {
        Self(Pair::new(dtype))
    }

    /// The next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes, bytes);
    }

    /// Its statistics.
    pub fn finish(self) -> Statistics {
        self.0.finish().0
    }
}

/// A sum that keeps what rounding loses (Neumaier).
#[derive(Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        let sum = self.sum + x;
        let (large, small) = if self.sum.abs() >= x.abs() { (self.sum, x) } else { (x, self.sum) };
        if sum.is_finite() {
            self.lost += (large - sum) + small;
        }
        self.sum = sum;
    }

    fn value(&self) -> f64 {
        self.sum + self.lost
    }
}

/// Moments of the finite values so far, joined block by block.
#[derive(Default)]
struct Moments {
    n: f64,
    nan: u64,
    inf: u64,
    min: Option<f64>,
    max: Option<f64>,
    mean: f64,
    /// Sums of the second, third and fourth powers of deviations from the mean.
    m2: f64,
    m3: f64,
    m4: f64,
    squares: Sum,
}

impl Moments {
    fn block(&mut self, values: &[f64]) {
        let finite = || values.iter().copied().filter(|x| x.is_finite());
        let n = finite().count() as f64;
        if n < values.len() as f64 {
            self.nan += values.iter().filter(|x| x.is_nan()).count() as u64;
            self.inf += values.iter().filter(|x| x.is_infinite()).count() as u64;
        }
        if n == 0.0 {
            return;
        }
        let least = finite().fold(f64::INFINITY, f64::min);
        let most = finite().fold(f64::NEG_INFINITY, f64::max);
        self.min = Some(self.min.map_or(least, |min| min.min(least)));
        self.max = Some(self.max.map_or(most, |max| max.max(most)));
        // Divided before it is summed: 1024 values near f64's limit have a mean.
        let mean = finite().map(|x| x / n).sum::<f64>();
        let (mut squares, mut m2, mut m3, mut m4) = (0.0, 0.0, 0.0, 0.0);
        for x in finite() {
            let d = x - mean;
            squares += x * x;
            m2 += d * d;
            m3 += d * d * d;
            m4 += d * d * d * d;
        }
        self.squares.add(squares);
        self.join(n, mean, m2, m3, m4);
    }

    /// Moments of two sets from those of each (Chan, Golub and LeVeque; Pébay for the higher ones).
    fn join(&mut self, n_b: f64, mean: f64, m2: f64, m3: f64, m4: f64) {
        let (n_a, n) = (self.n, self.n + n_b);
        let (d, a, b) = (mean - self.mean, n_a / n, n_b / n);
        self.m4 += m4
            + d.powi(4) * n_a * b * (a * a - a * b + b * b)
            + 6.0 * d * d * (a * a * m2 + b * b * self.m2)
            + 4.0 * d * (a * m3 - b * self.m3);
        self.m3 += m3 + d.powi(3) * n_a * b * (a - b) + 3.0 * d * (a * m2 - b * self.m2);
        self.m2 += m2 + d * d * n_a * b;
        self.mean += d * b;
        self.n = n;
    }

    fn statistics(&self) -> Statistics {
        let finite = |x: f64| Some(x).filter(|x| x.is_finite() && self.n > 0.0);
        Statistics {
            count: 0,
            nan: self.nan,
            inf: self.inf,
            min: self.min,
            max: self.max,
            mean: finite(self.mean),
            std: finite((self.m2 / self.n).sqrt()),
            norm: finite(self.squares.value().sqrt()),
            kurtosis: finite(self.n * self.m4 / (self.m2 * self.m2)),
        }
    }
}
