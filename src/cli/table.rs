//! The tables that people read at the end of a command.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, TableComponent, presets};

/// Characters of a line that is not on a terminal.
const WIDTH: u16 = 80;
/// No terminal that a person reads is narrower.
const NARROWEST: u16 = 40;
/// Characters of a name that a user made up, at most.
const LONGEST_NAME: usize = 40;

/// Text as a terminal may have it: control characters, which could move its cursor or change its colours,
/// as escapes. Lines stay lines.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// A user's own name in a cell or line: on one line, and cut where it is very long.
pub fn name(text: &str) -> String {
    let text = printable(text).replace('\n', "\\n");
    match text.char_indices().nth(LONGEST_NAME) {
        Some(_) => text.chars().take(LONGEST_NAME - 1).chain(['…']).collect(),
        None => text,
    }
}

/// A note below a table: lines of at most the terminal's width, broken between words, the first indented
/// by two and the rest by four.
pub fn note(text: &str) -> String {
    let width = usize::from(Table::new().width().filter(|width| *width >= NARROWEST).unwrap_or(WIDTH));
    wrapped(&printable(text), width)
}

fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![" ".to_owned()];
    for word in text.split_whitespace() {
        let room = width.saturating_sub(lines.last().map_or(0, |line| line.chars().count()));
        // A word stands alone rather than be broken: it may be a path or a command.
        if word.chars().count() + 1 > room {
            lines.push("   ".to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

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
        // Tables are made to fit 80 columns, some to the letter.
        column.set_padding((0, u16::from(i + 1 < headings.len())));
        if *alignment == CellAlignment::Right {
            // A broken number is another number.
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

/// Keeps a column's cells on one line each; the others give way.
pub fn unbroken(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
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
    fn names_neither_move_the_cursor_nor_fill_the_screen() {
        assert_eq!(name("a\u{1b}[31mred\n\r"), "a\\u{1b}[31mred\\n\\r");
        assert_eq!(printable("two\nlines\u{7}"), "two\nlines\\u{7}");
        let long = name(&"ö".repeat(300));
        assert_eq!((long.chars().count(), long.chars().last()), (LONGEST_NAME, Some('…')));
        assert_eq!(name(&"x".repeat(LONGEST_NAME)), "x".repeat(LONGEST_NAME));
    }

    #[test]
    fn notes_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 10), "  one two\n    three");
        assert_eq!(wrapped("one /a/very/long/path end", 12), "  one\n    /a/very/long/path\n    end");
        let text = "R-hat 1.02 is above 1.01; ".repeat(20);
        assert!(wrapped(&text, 80).lines().all(|line| line.chars().count() <= 80));
        assert_eq!(wrapped(&text, 80).split_whitespace().count(), text.split_whitespace().count());
    }

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
