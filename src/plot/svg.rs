//! The drawing surface: SVG elements appended to a string, coordinates in CSS px.

use super::font::{FAMILY, Weight};

/// A rectangle in px.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Rect {
    pub fn right(&self) -> f64 {
        self.x + self.w
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.h
    }

    /// Left part of `share` of the width and the rest, `gap` px between them.
    pub fn split(&self, share: f64, gap: f64) -> (Self, Self) {
        let left = (self.w - gap) * share;
        (Self { w: left, ..*self }, Self { x: self.x + left + gap, w: self.w - gap - left, ..*self })
    }
}

/// Bytes of path data beyond which a line is dense.
const DENSE: usize = 8_000;

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stroke {
    pub color: &'static str,
    pub width: f64,
    pub dash: &'static str,
    pub opacity: f64,
}

impl Stroke {
    pub fn new(color: &'static str, width: f64) -> Self {
        Self { color, width, dash: "", opacity: 1.0 }
    }

    pub fn dash(self, dash: &'static str) -> Self {
        Self { dash, ..self }
    }

    pub fn opacity(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Size, weight, colour and place of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    pub size: f64,
    pub weight: Weight,
    pub color: &'static str,
    pub anchor: Anchor,
}

impl Font {
    pub fn new(size: f64, color: &'static str, anchor: Anchor) -> Self {
        Self { size, weight: Weight::Regular, color, anchor }
    }
}

/// The shape of a data point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Down,
    Plus,
    Cross,
}

/// Elements, in the order in which they are painted.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    body: String,
}

impl Canvas {
    /// The whole document. `title` and `description` are what a screen reader says.
    pub fn document(&self, size: (f64, f64), title: &str, description: &str) -> String {
        let (w, h) = (number(size.0), number(size.1));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
             role=\"img\" font-family=\"{FAMILY}\">\n<title>{}</title>\n<desc>{}</desc>\n\
             <rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            escape(title),
            escape(description),
            self.body
        )
    }

    /// One that has no area, as numbers are written, is left out: readers of SVG complain of it.
    pub fn rect(&mut self, r: Rect, fill: &str, opacity: f64) {
        if number(r.w.max(0.0)) == "0" || number(r.h.max(0.0)) == "0" {
            return;
        }
        self.body.push_str("<rect");
        for (name, value) in [("x", r.x), ("y", r.y), ("width", r.w.max(0.0)), ("height", r.h.max(0.0))] {
            self.attribute(name, value);
        }
        self.fill(fill, opacity);
        self.body.push_str("/>\n");
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        let mut path = Path::default();
        path.move_to(from);
        path.line_to(to);
        self.path(&path, stroke);
    }

    pub fn path(&mut self, path: &Path, stroke: Stroke) {
        if path.d.is_empty() {
            return;
        }
        self.body.push_str("<path d=\"");
        self.body.push_str(&path.d);
        self.body.push_str("\" fill=\"none\" stroke=\"");
        self.body.push_str(stroke.color);
        self.body.push('"');
        self.attribute("stroke-width", stroke.width);
        if !stroke.dash.is_empty() {
            self.body.push_str(" stroke-dasharray=\"");
            self.body.push_str(stroke.dash);
            self.body.push('"');
        }
        if stroke.opacity < 1.0 {
            self.attribute("stroke-opacity", stroke.opacity);
        }
        // Round joins cost the rasteriser most of its time, and in a dense line nobody sees them.
        let join = if path.d.len() > DENSE { "bevel" } else { "round" };
        self.body.push_str(" stroke-linejoin=\"");
        self.body.push_str(join);
        self.body.push_str("\"/>\n");
    }

    /// A solid line in a colour that no style has.
    pub fn path_in(&mut self, path: &Path, color: &str, width: f64, opacity: f64) {
        self.body.push_str("<path d=\"");
        self.body.push_str(&path.d);
        self.body.push_str("\" fill=\"none\" stroke=\"");
        self.body.push_str(color);
        self.body.push('"');
        self.attribute("stroke-width", width);
        if opacity < 1.0 {
            self.attribute("stroke-opacity", opacity);
        }
        self.body.push_str("/>\n");
    }

    pub fn area(&mut self, path: &Path, fill: &str, opacity: f64) {
        if path.d.is_empty() {
            return;
        }
        self.body.push_str("<path d=\"");
        self.body.push_str(&path.d);
        self.body.push_str("Z\"");
        self.fill(fill, opacity);
        self.body.push_str("/>\n");
    }

    /// A marker of about `r` px around `at`, filled, or hollow with an outline.
    pub fn marker(&mut self, marker: Marker, at: (f64, f64), r: f64, color: &'static str, filled: bool) {
        let (path, closed) = outline(marker, at, r);
        if !closed {
            return self.path(&path, Stroke::new(color, r * 0.5));
        }
        self.area(&path, if filled { color } else { "#ffffff" }, 1.0);
        if !filled {
            let mut ring = path;
            ring.d.push('Z');
            self.path(&ring, Stroke::new(color, (r * 0.4).max(1.2)));
        }
    }

    /// Many markers of one kind as a single path.
    pub fn markers(&mut self, marker: Marker, at: &[(f64, f64)], r: f64, color: &'static str, opacity: f64) {
        let mut all = Path::default();
        let mut closed = true;
        for &point in at {
            let (path, closes) = outline(marker, point, r);
            all.d.push_str(&path.d);
            closed = closes;
            if closes {
                all.d.push('Z');
            }
        }
        if closed {
            if all.d.pop().is_some() {
                self.area(&all, color, opacity);
            }
        } else {
            self.path(&all, Stroke::new(color, r * 0.5).opacity(opacity));
        }
    }

    /// A text with its baseline at `at`.
    pub fn text(&mut self, at: (f64, f64), text: &str, font: Font) {
        self.body.push_str("<text");
        self.attribute("x", at.0);
        self.attribute("y", at.1);
        self.finish_text(text, font);
    }

    /// A text that reads upwards, centred on `at`.
    pub fn text_up(&mut self, at: (f64, f64), text: &str, font: Font) {
        self.body.push_str("<text transform=\"translate(");
        push_number(&mut self.body, at.0);
        self.body.push(' ');
        push_number(&mut self.body, at.1);
        self.body.push_str(") rotate(-90)\"");
        self.finish_text(text, font);
    }

    fn finish_text(&mut self, text: &str, font: Font) {
        self.attribute("font-size", font.size);
        if font.weight == Weight::Bold {
            self.body.push_str(" font-weight=\"bold\"");
        }
        match font.anchor {
            Anchor::Start => {}
            Anchor::Middle => self.body.push_str(" text-anchor=\"middle\""),
            Anchor::End => self.body.push_str(" text-anchor=\"end\""),
        }
        self.body.push_str(" fill=\"");
        self.body.push_str(font.color);
        self.body.push_str("\">");
        self.body.push_str(&escape(text));
        self.body.push_str("</text>\n");
    }

    fn attribute(&mut self, name: &str, value: f64) {
        self.body.push(' ');
        self.body.push_str(name);
        self.body.push_str("=\"");
        push_number(&mut self.body, value);
        self.body.push('"');
    }

    fn fill(&mut self, color: &str, opacity: f64) {
        self.body.push_str(" fill=\"");
        self.body.push_str(color);
        self.body.push('"');
        if opacity < 1.0 {
            self.attribute("fill-opacity", opacity);
        }
    }
}

/// Outline of a marker, and whether it is an area.
fn outline(marker: Marker, (x, y): (f64, f64), r: f64) -> (Path, bool) {
    let polygon: &[(f64, f64)] = match marker {
        Marker::Circle => {
            let mut path = Path::default();
            path.move_to((x - r, y));
            for end in [2.0 * r, -2.0 * r] {
                path.d.push('a');
                for (i, v) in [r, r, 0.0, 1.0, 0.0, end, 0.0].into_iter().enumerate() {
                    if i > 0 {
                        path.d.push(' ');
                    }
                    push_number(&mut path.d, v);
                }
            }
            return (path, true);
        }
        Marker::Square => &[(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        Marker::Triangle => &[(0.0, -1.15), (1.05, 0.75), (-1.05, 0.75)],
        Marker::Down => &[(0.0, 1.15), (1.05, -0.75), (-1.05, -0.75)],
        Marker::Diamond => &[(0.0, -1.25), (1.0, 0.0), (0.0, 1.25), (-1.0, 0.0)],
        Marker::Plus | Marker::Cross => {
            let arms: [(f64, f64); 2] =
                if marker == Marker::Plus { [(1.1, 0.0), (0.0, 1.1)] } else { [(0.8, 0.8), (0.8, -0.8)] };
            let mut path = Path::default();
            for (dx, dy) in arms {
                path.move_to((x - r * dx, y - r * dy));
                path.line_to((x + r * dx, y + r * dy));
            }
            return (path, false);
        }
    };
    let mut path = Path::default();
    for (i, (dx, dy)) in polygon.iter().enumerate() {
        let at = (x + r * dx, y + r * dy);
        if i == 0 { path.move_to(at) } else { path.line_to(at) }
    }
    (path, true)
}

/// Path data.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    d: String,
}

impl Path {
    pub fn move_to(&mut self, at: (f64, f64)) {
        self.point('M', at);
    }

    pub fn line_to(&mut self, at: (f64, f64)) {
        self.point('L', at);
    }

    fn point(&mut self, command: char, (x, y): (f64, f64)) {
        self.d.push(command);
        push_number(&mut self.d, x);
        self.d.push(' ');
        push_number(&mut self.d, y);
    }
}

/// Hundredths of a px, without needless zeros. Not finite, or far outside any canvas: 0.
fn push_number(out: &mut String, x: f64) {
    let hundredths = (x * 100.0).round();
    let hundredths = if hundredths.abs() < 1e9 { hundredths as i64 } else { 0 };
    if hundredths < 0 {
        out.push('-');
    }
    let (whole, rest) = (hundredths.unsigned_abs() / 100, (hundredths.unsigned_abs() % 100) as u8);
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut left = whole;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|&b| char::from(b)));
    if rest > 0 {
        out.push('.');
        out.push(char::from(b'0' + rest / 10));
        if !rest.is_multiple_of(10) {
            out.push(char::from(b'0' + rest % 10));
        }
    }
}

fn number(x: f64) -> String {
    let mut out = String::new();
    push_number(&mut out, x);
    out
}

/// `text` as XML content: markup escaped, what XML 1.0 does not allow replaced by U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_decimals_at_most() {
        let cases = [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.004, "0"),
            (12.345, "12.35"),
            (-3.07, "-3.07"),
            (1e300, "0"),
            (f64::NAN, "0"),
        ];
        for (x, text) in cases {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<script>&\"'\u{1}"), "&lt;script&gt;&amp;&quot;&apos;\u{fffd}");
    }
}
