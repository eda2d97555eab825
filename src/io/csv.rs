//! Flat tables as CSV (RFC 4180), for spreadsheets and for `less`.

use super::IoError;
use super::table::ColumnData;

/// First characters by which spreadsheets take a cell for a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// The bytes of a CSV file: a line of names, then a line a row, each ended by CR LF; UTF-8. Nulls and NaN
/// are empty cells; infinities are `inf` and `-inf`; numbers have the fewest digits that read back the same.
/// A text that a spreadsheet would take for a formula (it begins with `= + - @`, a tab or a carriage
/// return, and is no number) has an apostrophe before it.
///
/// # Errors
/// [`IoError::Table`] for columns of unequal length.
pub fn write_csv(columns: &[(&str, ColumnData)]) -> Result<Vec<u8>, IoError> {
    let rows = columns.first().map_or(0, |(_, data)| data.len());
    if let Some((name, data)) = columns.iter().find(|(_, data)| data.len() != rows) {
        let fault = format!("has {} rows, the first column {rows}; give both the same", data.len());
        return Err(IoError::Table { column: (*name).into(), fault });
    }
    let mut text = String::new();
    line(&mut text, columns.iter().map(|(name, _)| guarded(name)));
    for row in 0..rows {
        line(&mut text, columns.iter().map(|(_, data)| cell(data, row)));
    }
    Ok(text.into_bytes())
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    for (i, cell) in cells.enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&quoted(cell));
    }
    text.push_str("\r\n");
}

fn cell(data: &ColumnData, row: usize) -> String {
    match data {
        ColumnData::Str(v) => v[row].as_deref().map_or_else(String::new, guarded),
        ColumnData::F64(v) => v[row].filter(|x| !x.is_nan()).map_or_else(String::new, number),
        ColumnData::I64(v) => v[row].map_or_else(String::new, |i| i.to_string()),
        ColumnData::Bool(v) => v[row].map_or_else(String::new, |b| b.to_string()),
    }
}

/// The shortest text that reads back as `x`.
fn number(x: f64) -> String {
    // Plain digits where they are few, an exponent elsewhere: both are shortest round trips.
    let plain = x == 0.0 || (1e-5..1e16).contains(&x.abs()) || x.is_infinite();
    if plain { format!("{x}") } else { format!("{x:e}") }
}

fn guarded(text: &str) -> String {
    if text.starts_with(FORMULA) && text.parse::<f64>().is_err() { format!("'{text}") } else { text.into() }
}

fn quoted(cell: String) -> String {
    if cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(columns: &[(&str, ColumnData)]) -> String {
        String::from_utf8(write_csv(columns).unwrap()).unwrap()
    }

    #[test]
    fn cells_are_quoted_and_formulas_are_not() {
        let texts = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+x", "'+x"),
            ("-x", "'-x"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\rx", "\"'\rx\""),
            ("-1.5e3", "-1.5e3"),
            ("+7", "+7"),
            ("", ""),
        ];
        let column = ColumnData::Str(texts.iter().map(|(from, _)| Some((*from).into())).collect());
        let expected: String = texts.iter().map(|(_, to)| format!("{to}\r\n")).collect();
        assert_eq!(text(&[("=name", column)]), format!("'=name\r\n{expected}"));
    }

    #[test]
    fn numbers_read_back_the_same_and_what_is_none_is_empty() {
        let xs = [0.1, -0.0, 1e-300, 5e-324, 123_456.789, 1e22, f64::MAX, 6e-5, f64::INFINITY];
        let column = ColumnData::F64(xs.iter().map(|x| Some(*x)).chain([None, Some(f64::NAN)]).collect());
        let all = text(&[("x", column)]);
        let lines: Vec<&str> = all.lines().skip(1).collect();
        for (x, line) in xs.iter().zip(&lines) {
            assert_eq!(line.parse::<f64>().unwrap().to_bits(), x.to_bits(), "{line}");
        }
        assert_eq!(lines[xs.len()..], ["", ""]);
        let row = [
            ("i", ColumnData::I64(vec![Some(i64::MIN), None])),
            ("b", ColumnData::Bool(vec![Some(true), None])),
        ];
        assert_eq!(text(&row), "i,b\r\n-9223372036854775808,true\r\n,\r\n");
        let uneven = [("a", ColumnData::I64(vec![])), ("b", ColumnData::I64(vec![None]))];
        assert!(write_csv(&uneven).unwrap_err().to_string().contains("'b': has 1 rows"));
    }
}
