//! What every figure has around its data: title, legend, notes; panels with axes.

use super::data::{Figure, FigureName};
use super::font::{self, Weight, fit, wrap};
use super::scale::{Scale, Ticks};
use super::style::{FRAME, GRID, INK, LABEL, SIZE, SMALL, SOFT, TICK, TITLE};
use super::svg::{Anchor, Canvas, Font, Marker, Path, Rect, Stroke};

/// Free px around everything.
const MARGIN: f64 = 16.0;

/// A sample in a legend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sample {
    Line(Stroke),
    /// A filled area under a line.
    Area(Stroke),
    Band(&'static str, f64),
    Dot(Marker, &'static str, bool),
}

/// A figure in the making.
pub(super) struct Page {
    pub canvas: Canvas,
    name: FigureName,
    title: String,
    caption: String,
    notes: Vec<String>,
    /// Where the next thing below the title goes.
    top: f64,
}

impl Page {
    /// With `title` in bold and `subtitle` (may be empty) below.
    pub fn new(name: FigureName, title: &str, subtitle: &str, caption: &str) -> Self {
        let room = SIZE.0 - 2.0 * MARGIN;
        let mut canvas = Canvas::default();
        let bold = Font { weight: Weight::Bold, ..Font::new(TITLE, INK, Anchor::Start) };
        canvas.text((MARGIN, MARGIN + 16.0), &fit(title, TITLE, Weight::Bold, room), bold);
        let mut top = MARGIN + 26.0;
        if !subtitle.is_empty() {
            let text = fit(subtitle, TICK, Weight::Regular, room);
            canvas.text((MARGIN, top + 14.0), &text, Font::new(TICK, SOFT, Anchor::Start));
            top += 22.0;
        }
        Self { canvas, name, title: title.into(), caption: caption.into(), notes: Vec::new(), top }
    }

    /// A row or more of samples with their names; at most two rows, the rest is counted.
    pub fn legend(&mut self, entries: &[(Sample, String)]) {
        const SAMPLE: f64 = 26.0;
        const GAP: f64 = 15.0;
        let right = SIZE.0 - MARGIN;
        let (mut x, mut row) = (MARGIN, 0);
        for (i, (sample, name)) in entries.iter().enumerate() {
            let name = fit(name, TICK, Weight::Regular, if entries.len() <= 3 { 460.0 } else { 220.0 });
            let wide = SAMPLE + 7.0 + font::width(&name, TICK, Weight::Regular);
            let more = format!("+ {} more", entries.len() - i);
            let reserve = if row == 1 && i + 1 < entries.len() {
                font::width(&more, TICK, Weight::Regular) + GAP
            } else {
                0.0
            };
            if x > MARGIN && x + wide + reserve > right {
                if row == 1 {
                    let at = (x, self.top + 16.0 + 22.0);
                    self.canvas.text(at, &more, Font::new(TICK, SOFT, Anchor::Start));
                    break;
                }
                (x, row) = (MARGIN, 1);
            }
            let middle = self.top + 11.0 + 22.0 * f64::from(row);
            self.sample(*sample, x, middle, SAMPLE);
            self.canvas.text((x + SAMPLE + 7.0, middle + 5.0), &name, Font::new(TICK, INK, Anchor::Start));
            x += wide + GAP;
        }
        if !entries.is_empty() {
            self.top += 22.0 * f64::from(row + 1);
        }
    }

    fn sample(&mut self, sample: Sample, x: f64, y: f64, wide: f64) {
        match sample {
            Sample::Line(stroke) => self.canvas.line((x, y), (x + wide, y), stroke),
            Sample::Area(stroke) => {
                self.canvas.rect(Rect { x, y: y - 6.0, w: wide, h: 12.0 }, stroke.color, 0.18);
                self.canvas.line((x, y - 6.0), (x + wide, y - 6.0), stroke);
            }
            Sample::Band(color, opacity) => {
                self.canvas.rect(Rect { x, y: y - 6.0, w: wide, h: 12.0 }, color, opacity);
            }
            Sample::Dot(marker, color, filled) => {
                self.canvas.marker(marker, (x + wide / 2.0, y), 5.0, color, filled);
            }
        }
    }

    /// A sentence at the foot.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// What is left for panels, their axes' texts included. Notes come before.
    pub fn body(&self) -> Rect {
        let y = self.top + 8.0;
        let foot = if self.notes.is_empty() { MARGIN - 4.0 } else { MARGIN + 14.0 };
        Rect { x: MARGIN, y, w: SIZE.0 - 2.0 * MARGIN, h: SIZE.1 - foot - y }
    }

    /// A sentence where data would be.
    pub fn message(&mut self, area: Rect, text: &str) {
        let lines = wrap(text, LABEL, Weight::Regular, area.w - 24.0);
        let first = area.y + area.h / 2.0 - 11.0 * (lines.len() as f64 - 1.0) + 5.0;
        for (i, line) in lines.iter().enumerate() {
            let at = (area.x + area.w / 2.0, first + 22.0 * i as f64);
            self.canvas.text(at, line, Font::new(LABEL, SOFT, Anchor::Middle));
        }
    }

    /// The whole body as an empty frame with a sentence in it.
    pub fn empty(mut self, text: &str) -> Figure {
        let body = self.body();
        let frame = Rect { x: body.x, y: body.y, w: body.w, h: body.h - 8.0 };
        self.canvas.rect(frame, "#f5f5f5", 1.0);
        self.message(frame, text);
        self.finish()
    }

    pub fn finish(mut self) -> Figure {
        if !self.notes.is_empty() {
            let text = self.notes.join(" ");
            let text = fit(&text, SMALL, Weight::Regular, SIZE.0 - 2.0 * MARGIN);
            self.canvas.text((MARGIN, SIZE.1 - 11.0), &text, Font::new(SMALL, SOFT, Anchor::Start));
        }
        let description = match self.notes.is_empty() {
            true => self.caption.clone(),
            false => format!("{} {}", self.caption, self.notes.join(" ")),
        };
        let title = format!("{}: {}", self.title, self.name.what());
        Figure::new(self.name, self.caption, self.canvas.document(SIZE, &title, &description))
    }
}

/// An axis to be drawn.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub label: String,
    pub scale: Scale,
    /// Whether ticks have labels.
    pub labelled: bool,
}

impl Axis {
    pub fn new(label: impl Into<String>, scale: Scale) -> Self {
        Self { label: label.into(), scale, labelled: true }
    }

    /// Neither ticks nor their labels.
    pub fn bare(label: impl Into<String>, scale: Scale) -> Self {
        Self { labelled: false, ..Self::new(label, scale) }
    }
}

/// The area between two axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub area: Rect,
    pub x: Scale,
    pub y: Scale,
}

impl Panel {
    /// Draws grid, frame, ticks and labels into `outer`.
    pub fn draw(canvas: &mut Canvas, outer: Rect, x: &Axis, y: &Axis) -> Self {
        let second_row = !x.label.is_empty() || (x.labelled && x.scale.ticks(1).factor.is_some());
        let below = if x.labelled { 22.0 } else { 6.0 } + if second_row { 22.0 } else { 0.0 };
        let above = 14.0;
        let height = (outer.h - below - above).max(10.0);
        let y_ticks =
            if y.labelled { y.scale.ticks(((height / 55.0) as usize).max(3)) } else { Ticks::default() };
        let widest =
            y_ticks.major.iter().map(|t| font::width(&t.label, TICK, Weight::Regular)).fold(0.0, f64::max);
        let before =
            widest + if y.labelled { 9.0 } else { 0.0 } + if y.label.is_empty() { 0.0 } else { 24.0 };
        let area =
            Rect { x: outer.x + before, y: outer.y + above, w: (outer.w - before).max(10.0), h: height };
        let mut panel = Self { area, x: x.scale, y: y.scale };
        let over = if x.labelled { panel.x_overhang(outer.right() + MARGIN - 4.0) } else { 0.0 };
        panel.area.w = (area.w - over).max(10.0);
        let area = panel.area;
        panel.draw_y(canvas, outer, &y_ticks, &y.label);
        if x.labelled {
            panel.draw_x(canvas);
        }
        if !x.label.is_empty() {
            let label = fit(&x.label, LABEL, Weight::Regular, outer.w);
            let half = font::width(&label, LABEL, Weight::Regular) / 2.0;
            let middle = (area.x + area.w / 2.0).min(outer.right() - half).max(outer.x + half);
            let at = (middle, area.bottom() + below - 3.0);
            canvas.text(at, &label, Font::new(LABEL, INK, Anchor::Middle));
        }
        panel
    }

    /// The frame again, on top of what was drawn.
    pub fn frame(&self, canvas: &mut Canvas) {
        let Rect { x, y, .. } = self.area;
        let (right, bottom) = (self.area.right(), self.area.bottom());
        let mut path = Path::default();
        path.move_to((x, y));
        for corner in [(x, bottom), (right, bottom), (right, y), (x, y)] {
            path.line_to(corner);
        }
        canvas.path(&path, Stroke::new(FRAME, 1.0));
    }

    fn draw_y(&self, canvas: &mut Canvas, outer: Rect, ticks: &Ticks, label: &str) {
        let area = self.area;
        let mut grid = Path::default();
        for tick in &ticks.major {
            let at = self.py(tick.value);
            grid.move_to((area.x, at));
            grid.line_to((area.right(), at));
            canvas.text((area.x - 7.0, at + 5.0), &tick.label, Font::new(TICK, INK, Anchor::End));
        }
        canvas.path(&grid, Stroke::new(GRID, 1.0));
        if let Some(factor) = &ticks.factor {
            canvas.text((area.x + 2.0, area.y - 4.0), factor, Font::new(SMALL, INK, Anchor::Start));
        }
        if !label.is_empty() {
            let text = fit(label, LABEL, Weight::Regular, area.h + 20.0);
            let half = font::width(&text, LABEL, Weight::Regular) / 2.0;
            let at = (area.y + area.h / 2.0).max(outer.y + half - 10.0);
            canvas.text_up((outer.x + 13.0, at), &text, Font::new(LABEL, INK, Anchor::Middle));
        }
    }

    /// How far the last tick's label reaches beyond `limit`.
    fn x_overhang(&self, limit: f64) -> f64 {
        let end = self.x_ticks().major.last().map_or(limit, |tick| {
            self.px(tick.value) + font::width(&tick.label, TICK, Weight::Regular) / 2.0
        });
        (end - limit).max(0.0)
    }

    fn draw_x(&self, canvas: &mut Canvas) {
        let area = self.area;
        let ticks = self.x_ticks();
        let mut grid = Path::default();
        for x in ticks.major.iter().map(|t| t.value) {
            grid.move_to((self.px(x), area.y));
            grid.line_to((self.px(x), area.bottom()));
        }
        canvas.path(&grid, Stroke::new(GRID, 1.0));
        let mut marks = Path::default();
        for (x, long) in
            ticks.minor.iter().map(|&x| (x, 3.0)).chain(ticks.major.iter().map(|t| (t.value, 5.0)))
        {
            marks.move_to((self.px(x), area.bottom()));
            marks.line_to((self.px(x), area.bottom() + long));
        }
        canvas.path(&marks, Stroke::new(FRAME, 1.0));
        for tick in &ticks.major {
            let at = self.px(tick.value);
            canvas.text((at, area.bottom() + 19.0), &tick.label, Font::new(TICK, INK, Anchor::Middle));
        }
        if let Some(factor) = &ticks.factor {
            let at = (area.right(), area.bottom() + 37.0);
            canvas.text(at, factor, Font::new(SMALL, INK, Anchor::End));
        }
    }

    /// As many ticks as stand side by side with room between their labels.
    fn x_ticks(&self) -> Ticks {
        let mut ticks = Ticks::default();
        for count in (1..=7).rev() {
            ticks = self.x.ticks(count);
            let mut end = f64::NEG_INFINITY;
            let mut fits = true;
            for tick in &ticks.major {
                let half = font::width(&tick.label, TICK, Weight::Regular) / 2.0;
                fits &= self.px(tick.value) - half >= end + 14.0;
                end = self.px(tick.value) + half;
            }
            if fits {
                return ticks;
            }
        }
        // Not even the fewest fit: the first and the last.
        if let [first, .., last] = ticks.major.as_slice() {
            ticks.major = vec![first.clone(), last.clone()];
        }
        ticks
    }

    /// px of a value, NaN for what cannot be placed.
    pub fn px(&self, x: f64) -> f64 {
        self.area.x + self.x.place(x).clamp(-9.0, 10.0) * self.area.w
    }

    pub fn py(&self, y: f64) -> f64 {
        self.area.bottom() - self.y.place(y).clamp(-9.0, 10.0) * self.area.h
    }

    /// Whether a point lies between the axes.
    pub fn holds(&self, (x, y): (f64, f64)) -> bool {
        let a = self.area;
        x >= a.x - 1e-6 && x <= a.right() + 1e-6 && y >= a.y - 1e-6 && y <= a.bottom() + 1e-6
    }

    /// A line through `points`, cut at the frame; a point that cannot be placed makes a gap, a
    /// point between gaps a dot.
    pub fn line(&self, canvas: &mut Canvas, points: impl IntoIterator<Item = (f64, f64)>, stroke: Stroke) {
        let mut path = Path::default();
        let mut dots = Vec::new();
        let mut before: Option<(f64, f64)> = None;
        // Where the path's pen is, and how many points this stretch has.
        let mut pen: Option<(f64, f64)> = None;
        let mut stretch = 0;
        for (x, y) in points {
            let at = (self.px(x), self.py(y));
            if at.0.is_nan() || at.1.is_nan() {
                if let (1, Some(lone)) = (stretch, before) {
                    dots.push(lone);
                }
                (before, pen, stretch) = (None, None, 0);
                continue;
            }
            stretch += 1;
            if let Some(start) = before
                && let Some((from, to)) = cut(self.area, start, at)
            {
                if pen != Some(from) {
                    path.move_to(from);
                }
                path.line_to(to);
                pen = Some(to);
            }
            before = Some(at);
        }
        if let (1, Some(lone)) = (stretch, before) {
            dots.push(lone);
        }
        canvas.path(&path, stroke);
        dots.retain(|&at| self.holds(at));
        canvas.markers(Marker::Circle, &dots, stroke.width.max(2.5), stroke.color, stroke.opacity);
    }

    /// The area between `low` and `high`, cut at the frame; gaps where either cannot be placed.
    pub fn band(
        &self,
        canvas: &mut Canvas,
        points: impl IntoIterator<Item = (f64, f64, f64)>,
        fill: &'static str,
        opacity: f64,
    ) {
        let mut stretch: Vec<(f64, f64, f64)> = Vec::new();
        let (left, right) = (self.area.x, self.area.right());
        let (top, bottom) = (self.area.y, self.area.bottom());
        let mut flush = |stretch: &mut Vec<(f64, f64, f64)>| {
            if stretch.len() > 1 {
                let mut path = Path::default();
                for (i, &(x, low, _)) in stretch.iter().enumerate() {
                    if i == 0 { path.move_to((x, low)) } else { path.line_to((x, low)) }
                }
                for &(x, _, high) in stretch.iter().rev() {
                    path.line_to((x, high));
                }
                canvas.area(&path, fill, opacity);
            }
            stretch.clear();
        };
        for (x, low, high) in points {
            let at = (self.px(x).clamp(left, right), self.py(low), self.py(high));
            if at.0.is_nan() || at.1.is_nan() || at.2.is_nan() {
                flush(&mut stretch);
            } else {
                stretch.push((at.0, at.1.clamp(top, bottom), at.2.clamp(top, bottom)));
            }
        }
        flush(&mut stretch);
    }

    /// A line across at `y`, if it is inside.
    pub fn across(&self, canvas: &mut Canvas, y: f64, stroke: Stroke) {
        let at = self.py(y);
        if at >= self.area.y && at <= self.area.bottom() {
            canvas.line((self.area.x, at), (self.area.right(), at), stroke);
        }
    }

    /// A line upwards at `x`, if it is inside.
    pub fn upright(&self, canvas: &mut Canvas, x: f64, stroke: Stroke) {
        let at = self.px(x);
        if at >= self.area.x && at <= self.area.right() {
            canvas.line((at, self.area.y), (at, self.area.bottom()), stroke);
        }
    }
}

/// The part of a segment inside `r` (Liang & Barsky 1984).
fn cut(r: Rect, a: (f64, f64), b: (f64, f64)) -> Option<((f64, f64), (f64, f64))> {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    for (p, q) in [(-dx, a.0 - r.x), (dx, r.right() - a.0), (-dy, a.1 - r.y), (dy, r.bottom() - a.1)] {
        if p == 0.0 {
            if q < 0.0 {
                return None;
            }
        } else if p < 0.0 {
            enter = enter.max(q / p);
        } else {
            leave = leave.min(q / p);
        }
    }
    let at = |t: f64| {
        if t == 0.0 {
            a
        } else if t == 1.0 {
            b
        } else {
            (a.0 + t * dx, a.1 + t * dy)
        }
    };
    (enter <= leave).then(|| (at(enter), at(leave)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_cut_at_the_frame() {
        let r = Rect { x: 0.0, y: 0.0, w: 10.0, h: 10.0 };
        assert_eq!(cut(r, (-5.0, 5.0), (15.0, 5.0)), Some(((0.0, 5.0), (10.0, 5.0))));
        assert_eq!(cut(r, (1.0, 1.0), (2.0, 2.0)), Some(((1.0, 1.0), (2.0, 2.0))));
        assert_eq!(cut(r, (5.0, 5.0), (5.0, 25.0)), Some(((5.0, 5.0), (5.0, 10.0))));
        assert_eq!(cut(r, (-5.0, 1.0), (-1.0, 9.0)), None);
        assert_eq!(cut(r, (-5.0, 2.0), (2.0, -5.0)), None);
    }
}
