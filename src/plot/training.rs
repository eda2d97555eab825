//! Figures of a target's training and predictions.

use super::data::{Figure, FigureName, Predictions, TargetCurves};
use super::page::{Axis, Page, Panel, Sample};
use super::scale::{Scale, figures, is_drawable, is_positive, whole};
use super::series::{density, thin};
use super::style::{INK, color, dash};
use super::svg::{Rect, Stroke};

/// Most points of a scatter plot; of more, every so many.
const MOST_POINTS: usize = 4000;

/// `loss_curve`: loss on training and held-out rows against the optimiser's step, logarithmic.
pub fn loss_curve(target: &TargetCurves) -> Figure {
    let caption = format!(
        "Training of {}: {} on the training rows, and on held-out rows where there are some, against the \
         optimiser's step.",
        target.target, target.loss
    );
    let what = if target.loss.is_empty() { "loss" } else { target.loss };
    let sentence = |points: &[(f64, f64)]| points.last().map(|p| format!("last {}", figures(p.1, 3)));
    let facts: Vec<String> = [
        sentence(&target.train).map(|s| format!("training {s}")),
        sentence(&target.validation).map(|s| format!("held-out {s}")),
        target.l0.map(|l0| format!("L0 = {}", figures(l0, 3))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let title = format!("{} · training", target.target);
    let mut page = Page::new(FigureName::LossCurve, &title, &facts.join("  ·  "), &caption);
    let lines = [(&target.train, 0, "training rows"), (&target.validation, 1, "held-out rows")];
    let points = || lines.iter().flat_map(|(points, ..)| points.iter());
    let positive = points().filter(|p| is_positive(p.1)).count();
    if positive == 0 {
        return page.empty(
            "There is no training history: this target was not trained, or its losses are not positive.",
        );
    }
    let left_out = points().count() - positive;
    if left_out > 0 {
        page.note(format!("{} losses are not finite or not positive and left out.", whole(left_out)));
    }
    let mut legend: Vec<(Sample, String)> = lines
        .iter()
        .filter(|(points, ..)| !points.is_empty())
        .map(|&(_, i, name)| (Sample::Line(stroke(i)), name.to_string()))
        .collect();
    if target.l0.is_some() {
        legend.push((Sample::Line(at_centre()), "L0, at w*".into()));
    }
    page.legend(&legend);
    let x = Scale::around(points().map(|p| p.0), 0.0);
    let y = Scale::log_around(points().map(|p| p.1).chain(target.l0), 0.05);
    let body = page.body();
    let panel =
        Panel::draw(&mut page.canvas, body, &Axis::new("step of the optimiser", x), &Axis::new(what, y));
    for (points, i, _) in lines {
        let values: Vec<f64> = points.iter().map(|p| p.1).collect();
        // Thinned by position; positions are looked up again.
        let thinned = thin(&values, 500);
        let line = thinned.into_iter().map(|(k, v)| (points[k as usize - 1].0, v));
        panel.line(&mut page.canvas, line, stroke(i));
    }
    if let Some(l0) = target.l0 {
        panel.across(&mut page.canvas, l0, at_centre());
    }
    panel.frame(&mut page.canvas);
    page.finish()
}

fn stroke(i: usize) -> Stroke {
    Stroke::new(color(i), 2.0).dash(dash(i))
}

fn at_centre() -> Stroke {
    Stroke::new(INK, 1.6).dash("2 3")
}

/// `target_pred_vs_teacher_train` and `…_test`: predictions against the teacher's outputs, and the
/// density of their difference.
pub fn pred_vs_teacher(data: &Predictions) -> Figure {
    let (name, rows) = match data.held_out {
        true => (FigureName::PredTest, "held-out rows"),
        false => (FigureName::PredTrain, "training rows"),
    };
    let truth = if data.observed { "observation" } else { "teacher" };
    let caption = format!(
        "Predictions of {} against the {truth} on {rows}, one point an output, with the line of equality; at the \
         right the density of their difference.",
        data.target
    );
    let good: Vec<(f64, f64)> =
        data.pairs.iter().copied().filter(|p| is_drawable(p.0) && is_drawable(p.1)).collect();
    let title = format!("{} · predictions on {rows}", data.target);
    let residuals: Vec<f64> = good.iter().map(|p| p.1 - p.0).collect();
    let largest = residuals.iter().fold(0.0_f64, |m, r| m.max(r.abs()));
    // In units of the largest, so that squares exist.
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let squares: f64 = residuals.iter().map(|r| (r / unit) * (r / unit)).sum();
    let rms = (squares / good.len().max(1) as f64).sqrt() * unit;
    let facts = if good.is_empty() {
        String::new()
    } else {
        format!("root mean square difference {}  ·  {} outputs", figures(rms, 3), whole(good.len()))
    };
    let mut page = Page::new(name, &title, &facts, &caption);
    let bad = data.pairs.len() - good.len();
    if bad > 0 {
        page.note(format!(
            "{} of {} pairs are not finite and left out.",
            whole(bad),
            whole(data.pairs.len())
        ));
    }
    if good.is_empty() {
        return page.empty(if bad > 0 {
            "None of the pairs is finite."
        } else {
            "There are no predictions."
        });
    }
    let stride = good.len().div_ceil(MOST_POINTS);
    if stride > 1 {
        page.note(format!("One point in {} is drawn.", whole(stride)));
    }
    let scale = Scale::around(good.iter().flat_map(|p| [p.0, p.1]), 0.04);
    let body = page.body();
    let (left, right) = body.split(0.56, 22.0);
    let x = format!("{truth}'s output").replace("observation's output", "observation");
    let panel = Panel::draw(&mut page.canvas, left, &Axis::new(x, scale), &Axis::new("prediction", scale));
    let equal = [(scale.lo, scale.lo), (scale.hi, scale.hi)];
    panel.line(&mut page.canvas, equal, Stroke::new(INK, 1.4).dash("7 3"));
    let points: Vec<(f64, f64)> =
        good.iter().step_by(stride.max(1)).map(|p| (panel.px(p.0), panel.py(p.1))).collect();
    let opacity = match points.len() {
        0..=200 => 0.75,
        201..=1000 => 0.5,
        _ => 0.3,
    };
    let size = if points.len() <= 300 { 3.6 } else { 2.4 };
    page.canvas.markers(super::svg::Marker::Circle, &points, size, color(0), opacity);
    panel.frame(&mut page.canvas);

    match density(residuals.iter()) {
        Some(curve) => {
            let x = Scale::around(curve.iter().map(|p| p.0).chain([0.0]), 0.0);
            let highest = curve.iter().map(|p| p.1).fold(0.0, f64::max);
            let y = Axis::bare("density", Scale::linear(0.0, highest * 1.06));
            let side =
                Panel::draw(&mut page.canvas, right, &Axis::new(format!("prediction − {truth}"), x), &y);
            side.band(&mut page.canvas, curve.iter().map(|&(v, d)| (v, 0.0, d)), color(0), 0.18);
            side.line(&mut page.canvas, curve, Stroke::new(color(0), 2.2));
            side.upright(&mut page.canvas, 0.0, Stroke::new(INK, 1.4).dash("7 3"));
            side.frame(&mut page.canvas);
        }
        None => {
            let area = Rect { y: panel.area.y, h: panel.area.h, ..right };
            page.message(area, "The difference does not vary: there is no density to draw.");
        }
    }
    page.finish()
}
