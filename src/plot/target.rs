//! Figures of one target: its samplers beside each other.

use super::data::{Figure, FigureName, RunSeries};
use super::font::{self, Weight, fit};
use super::page::{Axis, Page, Panel, Sample};
use super::run::{Z, banded, exact_stroke, nothing};
use super::scale::{Scale, figures, is_drawable, is_positive, with_error};
use super::series::{autocorrelation_time, log_grid, running};
use super::style::{GRID, INK, SOFT, TICK, color, dash, marker};
use super::svg::{Anchor, Font, Rect, Stroke};
use crate::diagnostics::Verdict;

/// Most samplers in a figure: rows of a fifth of an inch.
const MOST_ROWS: usize = 16;

/// `llc_convergence_combined`: running mean of each sampler against work and against time.
///
/// A curve begins where the warmup's work is done and the first hundredth of the draws is made; work
/// and time are spread evenly over the draws.
pub fn convergence(target: &str, runs: &[RunSeries]) -> Figure {
    let caption = format!(
        "Mean llc so far of each sampler on {target}, with its 95 % band, against work in full-data gradient \
         evaluations and against wall time, warmup included in both; the curve that settles furthest left is cheapest."
    );
    let mut page = Page::new(
        FigureName::Convergence,
        &format!("{target} · convergence of λ̂"),
        "mean llc so far ± 95 % band; warmup counts",
        &caption,
    );
    let shown: Vec<(usize, &RunSeries)> =
        runs.iter().enumerate().filter(|(_, r)| nothing(&r.chains).is_none()).collect();
    note_left_out(&mut page, runs, shown.len(), "without finite draws");
    if shown.is_empty() {
        return page.empty("No sampler has finite draws.");
    }
    let mut legend: Vec<(Sample, String)> =
        shown.iter().map(|&(i, r)| (Sample::Line(stroke(i)), r.sampler.to_string())).collect();
    let exact = runs.iter().find_map(|r| r.exact_llc);
    if let Some(exact) = exact {
        legend.push((Sample::Line(exact_stroke()), format!("exact {}", figures(exact, 4))));
    }
    page.legend(&legend);

    struct Curve {
        series: usize,
        /// (share of the draws made, mean, low, high)
        points: Vec<(f64, f64, f64, f64)>,
        fge: (f64, f64),
        seconds: Option<(f64, f64)>,
    }
    let curves: Vec<Curve> = shown
        .iter()
        .map(|&(series, run)| {
            let draws = run.chains.iter().map(|c| c.len()).max().unwrap_or(0);
            let time = autocorrelation_time(&run.chains, run.ess);
            let grid = log_grid((draws / 100).max(2), draws, 160);
            let points = running(&run.chains, &grid)
                .iter()
                .map(|m| banded(m, time))
                .map(|(k, mean, low, high)| (k / draws as f64, mean, low, high))
                .collect();
            Curve {
                series,
                points,
                fge: (run.fge_warmup, run.fge_sampling),
                seconds: run.seconds_warmup.zip(run.seconds_sampling),
            }
        })
        .collect();
    // Early means may leave the panel: they would squeeze the rest.
    let late = curves.iter().flat_map(|c| &c.points).filter(|p| p.0 >= 0.1).flat_map(|p| [p.1, p.2, p.3]);
    let y = Scale::around(late.chain(exact).filter(|x| x.is_finite()), 0.04);
    let (left, right) = page.body().split(0.53, 16.0);
    for (first, area, label) in [(true, left, "work (FGE)"), (false, right, "wall time (s)")] {
        let drawn: Vec<(&Curve, (f64, f64))> = curves
            .iter()
            .filter_map(|c| Some((c, if first { c.fge } else { c.seconds? })))
            .filter(|(_, (warmup, sampling))| warmup + sampling > 0.0)
            .collect();
        let spent = |(warmup, sampling): (f64, f64), share: f64| warmup + sampling * share;
        let ends = drawn.iter().flat_map(|(c, cost)| {
            let first = c.points.first().map_or(1.0, |p| p.0);
            [spent(*cost, first), spent(*cost, 1.0)]
        });
        let x =
            Axis { label: label.into(), scale: Scale::log_around(ends, 0.03), labelled: !drawn.is_empty() };
        let y_axis = if first { Axis::new("mean llc so far (nats)", y) } else { Axis::bare("", y) };
        let panel = Panel::draw(&mut page.canvas, area, &x, &y_axis);
        if !first {
            for tick in y.ticks(6).major {
                panel.across(&mut page.canvas, tick.value, Stroke::new(GRID, 1.0));
            }
        }
        for (curve, cost) in &drawn {
            let band = curve.points.iter().map(|p| (spent(*cost, p.0), p.2, p.3));
            panel.band(
                &mut page.canvas,
                band,
                color(curve.series),
                if curves.len() <= 5 { 0.16 } else { 0.07 },
            );
        }
        if let Some(exact) = exact {
            panel.across(&mut page.canvas, exact, exact_stroke());
        }
        for (curve, cost) in &drawn {
            let line = curve.points.iter().map(|p| (spent(*cost, p.0), p.1));
            panel.line(&mut page.canvas, line, stroke(curve.series));
            if let Some(end) = curve.points.last() {
                let at = (panel.px(spent(*cost, end.0)), panel.py(end.1));
                if panel.holds(at) {
                    page.canvas.marker(marker(curve.series), at, 4.5, color(curve.series), true);
                }
            }
        }
        panel.frame(&mut page.canvas);
        if drawn.is_empty() {
            page.message(panel.area, if first { "No work is recorded." } else { "No times are recorded." });
        }
    }
    page.finish()
}

fn stroke(series: usize) -> Stroke {
    Stroke::new(color(series), 2.4).dash(dash(series))
}

fn note_left_out(page: &mut Page, runs: &[RunSeries], shown: usize, why: &str) {
    let names: Vec<&str> = runs.iter().filter(|r| nothing(&r.chains).is_some()).map(|r| r.sampler).collect();
    if shown < runs.len() {
        page.note(format!("{} of {} samplers {why}: {}.", runs.len() - shown, runs.len(), names.join(", ")));
    }
}

/// Rows with names at the left, for figures with a row a sampler.
struct Rows {
    names: f64,
    area: Rect,
    high: f64,
}

impl Rows {
    fn new(page: &Page, names: &[&str], below: f64) -> Self {
        let widest =
            names.iter().map(|n| font::width(n, TICK, Weight::Regular)).fold(0.0, f64::max).min(170.0);
        let body = page.body();
        let names_right = body.x + widest + 6.0;
        let area = Rect {
            x: names_right + 10.0,
            y: body.y + 6.0,
            w: body.right() - names_right - 10.0,
            h: body.h - 6.0 - below,
        };
        Self { names: names_right, area, high: area.h / names.len().max(1) as f64 }
    }

    fn middle(&self, row: usize) -> f64 {
        self.area.y + self.high * (row as f64 + 0.5)
    }

    fn write_names(&self, page: &mut Page, names: &[&str]) {
        for (row, name) in names.iter().enumerate() {
            let name = fit(name, TICK, Weight::Regular, 170.0);
            page.canvas.text((self.names, self.middle(row) + 5.0), &name, Font::new(TICK, INK, Anchor::End));
        }
    }
}

/// `wnv`: work-normalised variance of each sampler, MCSE² × work and MCSE² × time; lower is better.
pub fn wnv(target: &str, runs: &[RunSeries]) -> Figure {
    let caption = format!(
        "Work-normalised variance of each sampler on {target}: squared Monte-Carlo standard error times work in \
         full-data gradient evaluations, and times wall time, warmup included; lower is better, and does not \
         depend on how long a sampler ran once the warmup is small."
    );
    let mut page = Page::new(
        FigureName::Wnv,
        &format!("{target} · work-normalised variance"),
        "MCSE² × cost, warmup included; lower (further left) is better",
        &caption,
    );
    let mut rows: Vec<(usize, &RunSeries)> = runs.iter().enumerate().collect();
    cut_rows(&mut page, &mut rows);
    let value = |run: &RunSeries, cost: f64| run.mcse.map(|m| m * m * cost).filter(|x| is_positive(*x));
    let by_work = |r: &RunSeries| value(r, r.fge_warmup + r.fge_sampling);
    let by_time = |r: &RunSeries| value(r, r.seconds_warmup? + r.seconds_sampling?);
    if rows.iter().all(|(_, r)| by_work(r).is_none() && by_time(r).is_none()) {
        return page.empty("No sampler has a Monte-Carlo standard error and a cost.");
    }
    let names: Vec<&str> = rows.iter().map(|(_, r)| r.sampler).collect();
    let frame = Rows::new(&page, &names, 44.0);
    frame.write_names(&mut page, &names);
    let (left, right) = frame.area.split(0.5, 30.0);
    type Value<'a> = &'a dyn Fn(&RunSeries) -> Option<f64>;
    let panels: [(Rect, &str, Value); 2] =
        [(left, "MCSE² × work (nats² · FGE)", &by_work), (right, "MCSE² × time (nats² · s)", &by_time)];
    for (area, label, value) in panels {
        let values: Vec<Option<f64>> = rows.iter().map(|(_, r)| value(r)).collect();
        let known = values.iter().flatten().count();
        let scale = Scale::log_around(values.iter().copied().flatten(), 0.14);
        let outer = Rect { y: area.y - 14.0, h: area.h + 58.0, ..area };
        let x = Axis { label: label.into(), scale, labelled: known > 0 };
        let panel = Panel::draw(&mut page.canvas, outer, &x, &Axis::bare("", Scale::linear(0.0, 1.0)));
        let panel = Panel { area: Rect { h: area.h, ..panel.area }, ..panel };
        for (row, (series, _)) in rows.iter().enumerate() {
            let y = frame.middle(row);
            page.canvas.line((area.x, y), (area.right(), y), Stroke::new(GRID, 1.0));
            let Some(v) = values[row] else {
                if known > 0 {
                    let at = (area.x + 8.0, y + 5.0);
                    page.canvas.text(at, "undefined", Font::new(TICK, SOFT, Anchor::Start));
                }
                continue;
            };
            let at = panel.px(v);
            page.canvas.line((area.x, y), (at, y), Stroke::new(color(*series), 2.0).opacity(0.5));
            page.canvas.marker(marker(*series), (at, y), 7.0, color(*series), true);
            let text = figures(v, 2);
            let wide = font::width(&text, TICK, Weight::Regular);
            let (x, anchor) = if at + 14.0 + wide < area.right() {
                (at + 12.0, Anchor::Start)
            } else {
                (at - 12.0, Anchor::End)
            };
            let on = Rect {
                x: if anchor == Anchor::Start { x - 2.0 } else { x - wide - 2.0 },
                y: y - 9.0,
                w: wide + 4.0,
                h: 18.0,
            };
            page.canvas.rect(on, "#ffffff", 0.85);
            page.canvas.text((x, y + 5.0), &text, Font::new(TICK, INK, anchor));
        }
        panel.frame(&mut page.canvas);
        if known == 0 {
            page.message(panel.area, "No cost of this kind is recorded.");
        }
    }
    page.finish()
}

fn cut_rows(page: &mut Page, rows: &mut Vec<(usize, &RunSeries)>) {
    if rows.len() > MOST_ROWS {
        page.note(format!("The first {MOST_ROWS} of {} runs are shown.", rows.len()));
        rows.truncate(MOST_ROWS);
    }
}

/// `llc_comparison`: λ̂ of each sampler with its 95 % interval, and the exact value where it is known.
pub fn comparison(target: &str, runs: &[RunSeries]) -> Figure {
    let caption = format!(
        "Estimate of the local learning coefficient of {target} by each sampler, with its 95 % interval; hollow \
         markers stand for the verdict `check`, and lines for exact values where they are known."
    );
    let mut page = Page::new(
        FigureName::Comparison,
        &format!("{target} · λ̂ by sampler"),
        "mean llc and its 95 % interval",
        &caption,
    );
    let mut rows: Vec<(usize, &RunSeries)> = runs.iter().enumerate().collect();
    cut_rows(&mut page, &mut rows);
    let mean = |r: &RunSeries| r.mean.filter(|x| is_drawable(*x));
    let interval = |r: &RunSeries| {
        r.interval
            .or_else(|| Some((r.mean? - Z * r.mcse?, r.mean? + Z * r.mcse?)))
            .filter(|(a, b)| is_drawable(*a) && is_drawable(*b))
    };
    if rows.iter().all(|(_, r)| mean(r).is_none()) {
        return page.empty("No sampler has an estimate.");
    }
    let exact = runs.iter().find_map(|r| r.exact_llc).filter(|x| is_drawable(*x));
    let lambda = runs.iter().find_map(|r| r.exact_lambda).filter(|x| is_drawable(*x));
    let mut legend = Vec::new();
    if let Some(x) = exact {
        legend.push((Sample::Line(exact_stroke()), format!("exact mean llc {}", figures(x, 4))));
    }
    let lambda_stroke = Stroke::new(SOFT, 1.6).dash("2 3");
    if let Some(x) = lambda {
        legend.push((Sample::Line(lambda_stroke), format!("λ = {}", figures(x, 4))));
    }
    if rows.iter().any(|(_, r)| r.verdict == Some(Verdict::Check)) {
        legend.push((Sample::Dot(super::svg::Marker::Circle, SOFT, false), "hollow: verdict check".into()));
    }
    page.legend(&legend);
    let names: Vec<&str> = rows.iter().map(|(_, r)| r.sampler).collect();
    let frame = Rows::new(&page, &names, 44.0);
    frame.write_names(&mut page, &names);
    let texts: Vec<String> = rows
        .iter()
        .map(|(_, r)| match (mean(r), r.mcse) {
            (Some(mean), Some(mcse)) => with_error(mean, mcse),
            (Some(mean), None) => figures(mean, 4),
            _ => "no estimate".into(),
        })
        .collect();
    let widest = texts.iter().map(|t| font::width(t, TICK, Weight::Regular)).fold(0.0, f64::max);
    let area = Rect { w: frame.area.w - widest - 12.0, ..frame.area };
    let ends = rows.iter().flat_map(|(_, r)| {
        let (low, high) = interval(r).unwrap_or((f64::NAN, f64::NAN));
        [mean(r).unwrap_or(f64::NAN), low, high]
    });
    // A λ far from every estimate is left to the legend.
    let estimates = Scale::around(ends.clone(), 0.0);
    let near = lambda.filter(|x| (-1.0..=2.0).contains(&estimates.place(*x)));
    let x = Scale::around(ends.chain(exact).chain(near), 0.05);
    let outer = Rect { y: area.y - 14.0, h: area.h + 58.0, ..area };
    let panel = Panel::draw(
        &mut page.canvas,
        outer,
        &Axis::new("λ̂ (nats)", x),
        &Axis::bare("", Scale::linear(0.0, 1.0)),
    );
    let panel = Panel { area: Rect { h: area.h, ..panel.area }, ..panel };
    for (value, stroke) in [(near, lambda_stroke), (exact, exact_stroke())] {
        if let Some(value) = value {
            panel.upright(&mut page.canvas, value, stroke);
        }
    }
    for (row, (series, run)) in rows.iter().enumerate() {
        let y = frame.middle(row);
        let at = (area.right() + 10.0, y + 5.0);
        page.canvas.text(at, &texts[row], Font::new(TICK, INK, Anchor::Start));
        let Some(mean) = mean(run) else { continue };
        let stroke = Stroke::new(color(*series), 2.2);
        if let Some((low, high)) = interval(run) {
            let (a, b) = (panel.px(low), panel.px(high));
            page.canvas.line((a, y), (b, y), stroke);
            for end in [a, b] {
                page.canvas.line((end, y - 6.0), (end, y + 6.0), stroke);
            }
        }
        let filled = run.verdict != Some(Verdict::Check);
        let shape = if filled { marker(*series) } else { hollow(marker(*series)) };
        page.canvas.marker(shape, (panel.px(mean), y), 6.5, color(*series), filled);
    }
    panel.frame(&mut page.canvas);
    page.finish()
}

/// A marker with an inside, so that it can be hollow.
fn hollow(marker: super::svg::Marker) -> super::svg::Marker {
    use super::svg::Marker;
    match marker {
        Marker::Plus | Marker::Cross => Marker::Circle,
        other => other,
    }
}
