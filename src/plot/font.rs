//! The embedded typeface: what the rasteriser draws with and what the layout measures with.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use resvg::usvg::fontdb::Database;

/// The family as SVG names it; readers without it fall back on a sans-serif of theirs.
pub(super) const FAMILY: &str = "&quot;DejaVu Sans&quot;, sans-serif";

/// Regular or bold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    Bold,
}

/// The fonts of the rasteriser: DejaVu Sans from this program, nothing of the system's.
pub(super) fn database() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let load = || {
        let mut fonts = Database::new();
        for bytes in [dejavu::sans::regular(), dejavu::sans::bold()] {
            fonts.load_font_source(resvg::usvg::fontdb::Source::Binary(Arc::new(bytes)));
        }
        fonts.set_sans_serif_family("DejaVu Sans");
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

/// Width of `text` in px at `size` px: the sum of its advances, kerning aside (which only narrows).
pub(super) fn width(text: &str, size: f64, weight: Weight) -> f64 {
    let advances = advances(weight);
    text.chars().map(|c| advances.of(c)).sum::<f64>() * size
}

/// `text`, or as much of it as fits into `room` px with an ellipsis behind.
pub(super) fn fit(text: &str, size: f64, weight: Weight, room: f64) -> Cow<'_, str> {
    if width(text, size, weight) <= room {
        return Cow::Borrowed(text);
    }
    let advances = advances(weight);
    let mut left = room / size - advances.of('…');
    let mut cut = String::new();
    for c in text.chars() {
        left -= advances.of(c);
        if left < 0.0 {
            break;
        }
        cut.push(c);
    }
    let end = cut.trim_end().len();
    cut.truncate(end);
    cut.push('…');
    Cow::Owned(cut)
}

/// `text` broken at spaces into lines of at most `room` px; a longer word is cut.
pub(super) fn wrap(text: &str, size: f64, weight: Weight, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = fit(word, size, weight, room);
        match lines.last_mut() {
            Some(line) if width(line, size, weight) + width(&format!(" {word}"), size, weight) <= room => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word.into_owned()),
        }
    }
    lines
}

/// Advance widths of the basic plane, in em.
struct Advances(Vec<f32>);

impl Advances {
    fn of(&self, c: char) -> f64 {
        // What the face lacks is drawn by a font unknown here, rarely wider than an em.
        f64::from(self.0.get(c as usize).copied().filter(|w| !w.is_nan()).unwrap_or(1.0))
    }
}

fn advances(weight: Weight) -> &'static Advances {
    static REGULAR: OnceLock<Advances> = OnceLock::new();
    static BOLD: OnceLock<Advances> = OnceLock::new();
    let (cell, bytes) = match weight {
        Weight::Regular => (&REGULAR, dejavu::sans::regular()),
        Weight::Bold => (&BOLD, dejavu::sans::bold()),
    };
    cell.get_or_init(|| Advances(read_advances(bytes).unwrap_or_default()))
}

/// Advances by code point from the tables `head`, `hhea`, `hmtx` and a `cmap` of format 4
/// (OpenType specification 1.9); NaN where the font has no glyph.
fn read_advances(font: &[u8]) -> Option<Vec<f32>> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(font.get(at..at + 2)?.try_into().ok()?) as usize);
    let u32_at = |at: usize| Some(u32::from_be_bytes(font.get(at..at + 4)?.try_into().ok()?) as usize);
    let table = |tag: &[u8]| {
        (0..u16_at(4)?)
            .map(|i| 12 + 16 * i)
            .find(|&at| font.get(at..at + 4) == Some(tag))
            .and_then(|at| u32_at(at + 8))
    };
    let em = u16_at(table(b"head")? + 18)? as f32;
    let metrics = u16_at(table(b"hhea")? + 34)?;
    let hmtx = table(b"hmtx")?;
    let advance = |glyph: usize| Some(u16_at(hmtx + 4 * glyph.min(metrics.checked_sub(1)?))? as f32 / em);

    let cmap = table(b"cmap")?;
    let map = (0..u16_at(cmap + 2)?)
        .filter_map(|i| Some(cmap + u32_at(cmap + 8 + 8 * i)?))
        .find(|&at| u16_at(at) == Some(4))?;
    let segments = u16_at(map + 6)? / 2;
    let mut widths = vec![f32::NAN; 1 << 16];
    for i in 0..segments {
        let end = u16_at(map + 14 + 2 * i)?;
        let start = u16_at(map + 16 + 2 * (segments + i))?;
        let delta = u16_at(map + 16 + 2 * (2 * segments + i))?;
        let offset_at = map + 16 + 2 * (3 * segments + i);
        let offset = u16_at(offset_at)?;
        for (code, width) in widths.iter_mut().enumerate().take(end.min(0xfffe) + 1).skip(start) {
            let glyph = match offset {
                0 => (code + delta) & 0xffff,
                _ => match u16_at(offset_at + offset + 2 * (code - start))? {
                    0 => 0,
                    glyph => (glyph + delta) & 0xffff,
                },
            };
            if glyph != 0 {
                *width = advance(glyph)?;
            }
        }
    }
    Some(widths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_are_those_of_the_face() {
        // From the hmtx table by another reader (fontTools): units of 1/2048 em.
        for (c, units) in [('0', 1303.0), ('m', 1995.0), (' ', 651.0), ('λ', 1212.0), ('−', 1716.0)] {
            assert_eq!((width(&c.to_string(), 2048.0, Weight::Regular)).round(), units, "{c:?}");
        }
        assert!(width("m", 10.0, Weight::Bold) > width("m", 10.0, Weight::Regular));
        assert_eq!(width("\u{302}", 10.0, Weight::Regular), 0.0);
    }

    #[test]
    fn text_is_cut_to_its_room() {
        let text = "a rather long name of a target";
        for room in [30.0, 60.0, 100.0, 500.0] {
            let cut = fit(text, 12.0, Weight::Regular, room);
            assert!(width(&cut, 12.0, Weight::Regular) <= room, "{cut}");
            assert_eq!(cut.ends_with('…'), room < 200.0);
        }
        let lines = wrap(text, 12.0, Weight::Regular, 100.0);
        assert!(lines.len() > 1);
        assert_eq!(lines.join(" "), text);
    }
}
