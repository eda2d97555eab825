//! Colours, dashes, markers and sizes that all figures share.

use super::svg::Marker;

/// Width and height of a figure in CSS px: 8.3 × 5.2 inches at 96 px an inch.
pub(super) const SIZE: (f64, f64) = (800.0, 500.0);
/// Device pixels a CSS px in a PNG.
pub(super) const PNG_SCALE: f32 = 2.0;

/// Sizes of text in px.
pub(super) const TITLE: f64 = 19.0;
pub(super) const LABEL: f64 = 16.0;
pub(super) const TICK: f64 = 15.0;
pub(super) const SMALL: f64 = 13.5;

pub(super) const INK: &str = "#1a1a1a";
pub(super) const SOFT: &str = "#4d4d4d";
pub(super) const FRAME: &str = "#737373";
pub(super) const GRID: &str = "#e4e4e4";

/// The qualitative palette of Okabe & Ito (2008), "Color universal design", without its yellow, which
/// is too pale for a line on white.
const COLORS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const DASHES: [&str; 6] = ["", "7 3", "2 2.5", "9 3 2 3", "12 4", "4 2 1.5 2"];
const MARKERS: [Marker; 7] = [
    Marker::Circle,
    Marker::Square,
    Marker::Triangle,
    Marker::Diamond,
    Marker::Down,
    Marker::Plus,
    Marker::Cross,
];

/// Colour of series `i`.
pub(super) fn color(i: usize) -> &'static str {
    COLORS[i % COLORS.len()]
}

/// Dash of series `i`: with the colour, 42 series look different; in grey the first six do.
pub(super) fn dash(i: usize) -> &'static str {
    DASHES[(i + i / COLORS.len()) % DASHES.len()]
}

/// Marker of series `i`.
pub(super) fn marker(i: usize) -> Marker {
    MARKERS[i % MARKERS.len()]
}

/// A colour of the map cividis (Nuñez, Anderton & Renslow 2018, PLoS ONE 13:e0199239) at `t` in
/// [0, 1], dark blue to yellow, by lines between nine of its colours.
pub(super) fn sequential(t: f64) -> String {
    const STOPS: [[u8; 3]; 9] = [
        [0, 34, 78],
        [18, 53, 112],
        [59, 73, 108],
        [87, 93, 109],
        [112, 113, 115],
        [138, 134, 120],
        [165, 156, 116],
        [195, 179, 105],
        [254, 232, 56],
    ];
    mix(&STOPS, t)
}

/// A colour between blue (0), white (½) and vermilion (1).
pub(super) fn diverging(t: f64) -> String {
    mix(&[[0, 114, 178], [255, 255, 255], [213, 94, 0]], t)
}

fn mix(stops: &[[u8; 3]], t: f64) -> String {
    let at = if t.is_finite() { t.clamp(0.0, 1.0) } else { 0.5 } * (stops.len() - 1) as f64;
    let i = (at as usize).min(stops.len() - 2);
    let part = at - i as f64;
    let channel = |k: usize| {
        let (a, b) = (f64::from(stops[i][k]), f64::from(stops[i + 1][k]));
        (a + (b - a) * part).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}
