//! The tables that people read at the end of a command.

use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};

/// Characters of a table that is not on a terminal.
const WIDTH: u16 = 100;
/// No terminal that a person reads is narrower.
const NARROWEST: u16 = 40;

/// A table with one heading a column; numbers stand to the right.
pub fn table(headings: &[(&str, CellAlignment)]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .remove_style(TableComponent::HorizontalLines)
        .remove_style(TableComponent::MiddleIntersections)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().map(|(h, _)| *h));
    // Pipes have no width, and terminals that mpirun makes up have one of 0.
    if table.width().is_none_or(|width| width < NARROWEST) {
        table.set_width(WIDTH);
    }
    for (i, (column, (_, alignment))) in table.column_iter_mut().zip(headings).enumerate() {
        column.set_cell_alignment(*alignment);
        // The program's own table of the quickstart fits 80 columns to the letter.
        column.set_padding((0, u16::from(i + 1 < headings.len())));
    }
    table
}

/// A number with as many digits as its error carries: two significant digits of the error.
pub fn with_error(value: f64, error: f64) -> String {
    if !(error.is_finite() && error > 0.0) {
        return number(value);
    }
    let digits = (1 - error.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.digits$} ± {error:.digits$}")
}

/// A number with four significant digits.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor() as i32;
    match exponent {
        -4..=5 => format!("{value:.*}", (3 - exponent).max(0) as usize),
        _ => format!("{value:.3e}"),
    }
}

/// Seconds as people say them.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 0.1 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s if s < 360_000.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_decide_how_many_digits_are_shown() {
        for (value, error, text) in [
            (1.60934, 0.0061, "1.6093 ± 0.0061"),
            (1.60934, 0.26, "1.61 ± 0.26"),
            (161.2, 26.4, "161 ± 26"),
            (1.5, f64::NAN, "1.500"),
            (0.0, 0.0, "0"),
        ] {
            assert_eq!(with_error(value, error), text);
        }
    }

    #[test]
    fn seconds_are_said_in_a_fitting_unit() {
        let said: Vec<String> = [0.0042, 12.0, 300.0, 7200.0, 864_000.0].map(seconds).to_vec();
        assert_eq!(said, ["4 ms", "12.0 s", "5 min", "2.0 h", "10.0 days"]);
    }
}
