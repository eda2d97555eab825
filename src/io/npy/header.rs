//! The header of a `.npy` file: a Python dictionary with the keys `descr`, `fortran_order` and
//! `shape`.

use super::NpyFault;

/// NumPy's own limit (64 since 2.0).
const MAX_DIMENSIONS: usize = 64;

/// Element types that are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dtype {
    F32,
    F64,
    I32,
    I64,
    U8,
    Bool,
    /// A text of so many code points, four bytes each.
    Text(usize),
}

impl Dtype {
    /// Bytes an element; `None` beyond what memory can address.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Dtype::U8 | Dtype::Bool => Some(1),
            Dtype::F32 | Dtype::I32 => Some(4),
            Dtype::F64 | Dtype::I64 => Some(8),
            Dtype::Text(points) => points.checked_mul(4),
        }
    }

    /// Element type and whether it is big-endian, from NumPy's type string such as `<f8`.
    fn parse(descr: &str) -> Result<(Self, bool), NpyFault> {
        let unknown = || NpyFault::Dtype(descr.into());
        let (order, kind) = descr.split_at_checked(1).ok_or_else(unknown)?;
        let big = match order {
            "<" | "|" => false,
            ">" => true,
            _ => return Err(unknown()),
        };
        let dtype = match kind {
            "f4" => Dtype::F32,
            "f8" => Dtype::F64,
            "i4" => Dtype::I32,
            "i8" => Dtype::I64,
            "u1" => Dtype::U8,
            "b1" => Dtype::Bool,
            _ if kind.starts_with('O') => return Err(NpyFault::Objects),
            _ => match kind.strip_prefix('U').map(str::parse) {
                Some(Ok(points)) => Dtype::Text(points),
                _ => return Err(unknown()),
            },
        };
        Ok((dtype, big))
    }
}

/// What the header says of the values.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub(super) dtype: Dtype,
    pub(super) big_endian: bool,
    /// First index fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

/// What is left of a header's text: a Python dictionary of one string, one bool and one tuple.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        self.0.strip_prefix(token).map(|rest| self.0 = rest).is_some()
    }

    fn expect(&mut self, token: &str, fault: &'static str) -> Result<(), NpyFault> {
        if self.take(token) { Ok(()) } else { Err(NpyFault::Header(fault)) }
    }

    fn string(&mut self) -> Result<&'a str, NpyFault> {
        let quote = if self.take("'") {
            '\''
        } else if self.take("\"") {
            '"'
        } else {
            return Err(NpyFault::Header("a quoted string was expected"));
        };
        let (text, rest) = self.0.split_once(quote).ok_or(NpyFault::Header("a string does not end"))?;
        self.0 = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, NpyFault> {
        if self.take("True") {
            Ok(true)
        } else {
            self.expect("False", "True or False was expected").map(|()| false)
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, NpyFault> {
        self.expect("(", "the shape is not a tuple")?;
        let mut shape = Vec::new();
        while !self.take(")") {
            let digits = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
            let (number, rest) = self.0.split_at(digits);
            shape.push(number.parse().map_err(|_| NpyFault::Header("a length is not a number"))?);
            self.0 = rest;
            if shape.len() > MAX_DIMENSIONS {
                return Err(NpyFault::Header("more than 64 dimensions"));
            }
            if !self.take(",") {
                self.expect(")", "the shape does not end")?;
                break;
            }
        }
        Ok(shape)
    }
}

/// Reads a header's text, whose three keys may come in any order.
pub(super) fn parse(text: &str) -> Result<Header, NpyFault> {
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    let mut cursor = Cursor(text);
    cursor.expect("{", "no dictionary")?;
    while !cursor.take("}") {
        let key = cursor.string()?;
        cursor.expect(":", "a key without a value")?;
        let again = match key {
            "descr" => {
                if cursor.take("[") {
                    return Err(NpyFault::Dtype("record".into()));
                }
                descr.replace(cursor.string()?).is_some()
            }
            "fortran_order" => fortran.replace(cursor.boolean()?).is_some(),
            "shape" => shape.replace(cursor.shape()?).is_some(),
            _ => return Err(NpyFault::Header("an unknown key")),
        };
        if again {
            return Err(NpyFault::Header("a key comes twice"));
        }
        if !cursor.take(",") {
            cursor.expect("}", "the dictionary does not end")?;
            break;
        }
    }
    cursor.skip_space();
    match (descr, fortran, shape, cursor.0) {
        (Some(descr), Some(fortran), Some(shape), "") => {
            let (dtype, big_endian) = Dtype::parse(descr)?;
            Ok(Header { dtype, big_endian, fortran, shape })
        }
        (_, _, _, "") => Err(NpyFault::Header("a key is missing")),
        _ => Err(NpyFault::Header("something follows the dictionary")),
    }
}
