//! Columns, their types, and where each lies in a row: the only place that multiplies offsets.
use crate::error::{Error, Result};

/// Bytes of a word: rows are read and written in these.
pub(crate) const WORD: usize = 8;
/// Words of a cache line.
pub(crate) const LINE: usize = 8;
pub(crate) const LINE_BYTES: usize = LINE * WORD;
/// Cache lines asked for ahead in one record; the processor follows a longer one by itself.
pub(crate) const FETCHED_LINES: usize = 32;
/// No row can be larger: enough for any image, far from overflow.
const MAX_ROW_BYTES: usize = 1 << 30;
/// Columns of one buffer, and axes of one column.
pub(crate) const MAX_COLUMNS: usize = 256;
pub(crate) const MAX_AXES: usize = 32;

/// The type of one number. The buffer moves bytes; only the check for NaN looks inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // They are NumPy's.
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl DType {
    /// Every type, at the index under which a snapshot names it.
    pub const ALL: [Self; 12] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
    ];

    /// `NumPy`'s name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// The type that `NumPy` calls so.
    ///
    /// # Errors
    /// `Invalid` for any other name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            Error::Invalid(format!("dtype: expected one of {}; got {name}", known.join(", ")))
        })
    }

    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The number at the start of `bytes`.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // What double precision does to integers beyond 2⁵³.
    pub(crate) fn number(self, bytes: [u8; 8]) -> f64 {
        macro_rules! read {
            ($number:ty) => {{
                let (bytes, _) = bytes.split_first_chunk().unwrap_or((&[0; size_of::<$number>()], &[]));
                <$number>::from_ne_bytes(*bytes)
            }};
        }
        match self {
            Self::Bool | Self::U8 => read!(u8).into(),
            Self::I8 => read!(i8).into(),
            Self::U16 => read!(u16).into(),
            Self::I16 => read!(i16).into(),
            Self::U32 => read!(u32).into(),
            Self::I32 => read!(i32).into(),
            Self::U64 => read!(u64) as f64,
            Self::I64 => read!(i64) as f64,
            Self::F16 => half(read!(u16)),
            Self::F32 => read!(f32).into(),
            Self::F64 => read!(f64),
        }
    }

    /// The index of the first number among `bytes` that is NaN or infinite, if the type has such.
    #[must_use]
    pub fn first_nonfinite(self, bytes: &[u8]) -> Option<usize> {
        // All exponent bits set, whatever the sign and fraction. The search runs only when a first pass, which the
        // compiler vectorises, has found that there is something to find.
        macro_rules! search {
            ($bits:ty, $exponent:expr) => {{
                let bad = |chunk: &[u8]| {
                    let bits = <$bits>::from_ne_bytes(chunk.try_into().unwrap_or_default());
                    bits & $exponent == $exponent
                };
                let numbers = || bytes.chunks_exact(size_of::<$bits>());
                if numbers().fold(false, |any, chunk| any | bad(chunk)) { numbers().position(bad) } else { None }
            }};
        }
        match self {
            Self::F16 => search!(u16, 0x7C00),
            Self::F32 => search!(u32, 0x7F80_0000),
            Self::F64 => search!(u64, 0x7FF0_0000_0000_0000),
            _ => None,
        }
    }
}

/// The value of a number in half precision.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), f64::from(bits & 0x3FF) / 1024.0);
    let size = match exponent {
        0 => fraction * 2_f64.powi(-14),
        0x1F if fraction == 0.0 => f64::INFINITY,
        0x1F => f64::NAN,
        _ => (1.0 + fraction) * 2_f64.powi(exponent - 15),
    };
    if bits >> 15 == 0 { size } else { -size }
}

/// One column as the caller describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: DType,
    /// The shape of one row of it; empty for a scalar.
    pub shape: Vec<usize>,
}

impl Column {
    /// Bytes of one row of it; `None` on overflow.
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.size(), |product, &n| product.checked_mul(n))
    }
}

/// Where one column lies in the record of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its first word.
    pub word: usize,
    /// Its bytes, without the padding of its last word.
    pub bytes: usize,
}

/// Words before the first column of a record: the number of the row's trajectory.
const HEADER: usize = 1;

/// The record of one row: its trajectory's number, then every column, each from a word of its own, in the order given.
#[derive(Clone, Debug)]
pub struct Layout {
    columns: Vec<Column>,
    fields: Vec<Field>,
    words: usize,
}

impl Layout {
    /// Lays the columns out.
    ///
    /// # Errors
    /// `Invalid` for no column, a name twice, a column of no bytes, or a row beyond one GiB.
    pub fn new(columns: Vec<Column>) -> Result<Self> {
        if columns.is_empty() || columns.len() > MAX_COLUMNS {
            return Err(Error::Invalid(format!("columns: expected 1 to {MAX_COLUMNS}; got {}", columns.len())));
        }
        let mut fields = Vec::with_capacity(columns.len());
        let mut word = HEADER;
        for (index, column) in columns.iter().enumerate() {
            let name = &column.name;
            if columns[..index].iter().any(|other| other.name == *name) {
                return Err(Error::Invalid(format!("columns: the name {name:?} is given twice")));
            }
            let shape = &column.shape;
            if shape.len() > MAX_AXES {
                return Err(Error::Invalid(format!("{name}: expected at most {MAX_AXES} axes; got {}", shape.len())));
            }
            let bytes = column.bytes().filter(|bytes| (1..=MAX_ROW_BYTES).contains(bytes)).ok_or_else(|| {
                Error::Invalid(format!("{name}: expected a shape of 1 to {MAX_ROW_BYTES} bytes a row; got {shape:?}"))
            })?;
            fields.push(Field { word, bytes });
            word += bytes.div_ceil(WORD);
        }
        if word > MAX_ROW_BYTES / WORD {
            return Err(Error::Invalid(format!("columns: expected at most {MAX_ROW_BYTES} bytes a row together")));
        }
        Ok(Self { columns, fields, words: padded(word) })
    }

    /// The columns, in the order given.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Where each column lies.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The index of the column called so.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Words from one record to the next.
    #[must_use]
    pub fn words(&self) -> usize {
        self.words
    }
}

/// Pads a record to the largest of 8, 4, 2 words that costs no more than a quarter of it: a record that starts
/// where a cache line starts touches the fewest lines.
fn padded(words: usize) -> usize {
    let fits = |to: &usize| (words.next_multiple_of(*to) - words) * 4 <= words;
    [LINE, LINE / 2, LINE / 4].into_iter().find(fits).map_or(words, |to| words.next_multiple_of(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, dtype: DType, shape: &[usize]) -> Column {
        Column { name: name.into(), dtype, shape: shape.into() }
    }

    #[test]
    fn a_row_of_the_ant_takes_three_lines() {
        let f32s = |name, n| column(name, DType::F32, &[n]);
        let layout = Layout::new(vec![f32s("observation", 29), f32s("action", 8), f32s("goal", 2)]).unwrap();
        let words: Vec<_> = layout.fields().iter().map(|field| field.word).collect();
        assert_eq!((words, layout.words()), (vec![1, 16, 20], 24));
    }

    #[test]
    fn padding_never_costs_more_than_a_quarter() {
        for words in 1..200 {
            let to = padded(words);
            assert!(to >= words && (to - words) * 4 <= words);
        }
        assert_eq!([padded(1), padded(3), padded(7), padded(9), padded(17)], [1, 3, 8, 10, 20]);
    }

    #[test]
    fn refuses_what_cannot_be_laid_out() {
        let refused = |columns| matches!(Layout::new(columns), Err(Error::Invalid(_)));
        assert!(refused(vec![]));
        assert!(refused(vec![column("a", DType::F32, &[0])]));
        assert!(refused(vec![column("a", DType::F64, &[usize::MAX, 2])]));
        assert!(refused(vec![column("a", DType::U8, &[1 << 30]), column("b", DType::U8, &[1])]));
        assert!(refused(vec![column("a", DType::U8, &[]), column("a", DType::U8, &[])]));
        assert!(refused(vec![column("a", DType::U8, &[1; 33])]));
    }

    #[test]
    fn finds_what_is_not_finite() {
        let floats = [0.0_f32, f32::MAX, f32::MIN_POSITIVE / 2.0, f32::NAN, f32::INFINITY];
        let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_ne_bytes()).collect();
        assert_eq!(DType::F32.first_nonfinite(&bytes), Some(3));
        assert_eq!(DType::F32.first_nonfinite(&bytes[..12]), None);
        assert_eq!(DType::F64.first_nonfinite(&f64::NEG_INFINITY.to_ne_bytes()), Some(0));
        assert_eq!(DType::F16.first_nonfinite(&0x7C01_u16.to_ne_bytes()), Some(0));
        assert_eq!(DType::U32.first_nonfinite(&[0xFF; 8]), None);
    }
}
