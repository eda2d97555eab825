//! Figures of a study: how trials went, what mattered, what was best.

use super::data::{Figure, FigureName, Param, Trial, TrialState, Trials};
use super::font::{self, Weight, fit};
use super::page::{Axis, Page, Panel, Sample};
use super::scale::{Scale, extent, figures, is_drawable, is_positive, whole};
use super::style::{FRAME, INK, LABEL, SMALL, SOFT, TICK, color, sequential};
use super::svg::{Anchor, Font, Marker, Path, Rect, Stroke};

/// Parameters that stand side by side.
const MOST_AXES: usize = 8;
/// Cells of a contour along each axis.
const CELLS: usize = 80;

fn value(trial: &Trial) -> Option<f64> {
    trial.value.filter(|x| is_drawable(*x))
}

fn complete(trials: &[Trial]) -> impl Iterator<Item = (&Trial, f64)> {
    trials.iter().filter(|t| t.state == TrialState::Complete).filter_map(|t| Some((t, value(t)?)))
}

/// Logarithmic where all values are positive and span more than two decades.
fn objective_scale(values: impl Iterator<Item = f64> + Clone, margin: f64) -> Scale {
    match extent(values.clone()) {
        Some((lo, hi)) if is_positive(lo) && hi > 100.0 * lo => Scale::log_around(values, margin),
        _ => Scale::around(values, margin),
    }
}

fn best<'a>(study: &'a Trials) -> Option<(&'a Trial, f64)> {
    complete(&study.trials).min_by(|a, b| a.1.total_cmp(&b.1))
}

fn summary(study: &Trials) -> String {
    let count = |state| study.trials.iter().filter(|t| t.state == state).count();
    let mut facts = vec![format!("{} trials", whole(study.trials.len()))];
    for (state, name) in [(TrialState::Pruned, "pruned"), (TrialState::Failed, "failed")] {
        if count(state) > 0 {
            facts.push(format!("{} {name}", whole(count(state))));
        }
    }
    if study.shortened > 0 {
        facts.push(format!("{} shortened to their budget, shown as proposed", whole(study.shortened)));
    }
    if let Some((trial, best)) = best(study) {
        facts.push(format!("best {} in trial {}", figures(best, 3), trial.number));
    }
    facts.join("  ·  ")
}

fn page(study: &Trials, name: FigureName, caption: String) -> Page {
    Page::new(name, &format!("{} · {}", study.study, name.what()), &summary(study), &caption)
}

const NONE: &str = "No trial has finished with a value.";

/// `optimization_history`: each trial's objective, and the best so far.
pub fn optimization_history(study: &Trials) -> Figure {
    let caption = format!(
        "{} of each trial of {}, in order, and the best so far; pruned trials are hollow, at the upper edge where \
         they lie beyond it; failed ones stand at the foot.",
        study.objective, study.study
    );
    let mut page = page(study, FigureName::OptimizationHistory, caption);
    if complete(&study.trials).next().is_none() {
        return page.empty(NONE);
    }
    let done: Vec<(f64, f64)> = complete(&study.trials).map(|(t, v)| (t.number as f64, v)).collect();
    let pruned: Vec<(f64, f64)> = study
        .trials
        .iter()
        .filter(|t| t.state == TrialState::Pruned)
        .filter_map(|t| Some((t.number as f64, value(t)?)))
        .collect();
    let failed: Vec<f64> =
        study.trials.iter().filter(|t| t.state == TrialState::Failed).map(|t| t.number as f64).collect();
    let line = Stroke::new(color(1), 2.4);
    let mut legend = vec![
        (Sample::Dot(Marker::Circle, color(0), true), "trial".into()),
        (Sample::Line(line), "best so far".into()),
    ];
    if !pruned.is_empty() {
        legend.push((Sample::Dot(Marker::Circle, SOFT, false), "pruned".into()));
    }
    if !failed.is_empty() {
        legend.push((Sample::Dot(Marker::Cross, SOFT, true), "failed".into()));
    }
    page.legend(&legend);
    // The scale is that of finished trials: a pruned one may be anywhere.
    let y = objective_scale(done.iter().map(|p| p.1), 0.06);
    // Up to 7 at least: there are no halves of trials for ticks to stand at.
    let x = Scale::around(study.trials.iter().map(|t| t.number as f64).chain([7.0]), 0.02);
    let body = page.body();
    let panel = Panel::draw(&mut page.canvas, body, &Axis::new("trial", x), &Axis::new(study.objective, y));
    for &(n, v) in &pruned {
        let at = (panel.px(n), panel.py(v).clamp(panel.area.y + 5.0, panel.area.bottom()));
        if panel.holds(at) {
            page.canvas.marker(Marker::Circle, at, 3.6, SOFT, false);
        }
    }
    for &n in &failed {
        page.canvas.marker(Marker::Cross, (panel.px(n), panel.area.bottom() - 8.0), 4.0, SOFT, true);
    }
    let points: Vec<(f64, f64)> = done.iter().map(|&(n, v)| (panel.px(n), panel.py(v))).collect();
    page.canvas.markers(Marker::Circle, &points, if points.len() > 300 { 2.6 } else { 4.0 }, color(0), 0.7);
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for &(n, v) in &done {
        let lowest = steps.last().map_or(v, |s| s.1.min(v));
        if let Some(&(_, before)) = steps.last() {
            steps.push((n, before));
        }
        steps.push((n, lowest));
    }
    if let Some(&(_, lowest)) = steps.last() {
        steps.push((x.hi, lowest));
    }
    panel.line(&mut page.canvas, steps, line);
    panel.frame(&mut page.canvas);
    page.finish()
}

/// `param_importance`: share of the objective's variance that each parameter explains.
pub fn param_importance(study: &Trials) -> Figure {
    let caption = format!(
        "Share of the variance of {} over the trials of {} that each parameter explains{}.",
        study.objective,
        study.study,
        if study.importance_method.is_empty() {
            String::new()
        } else {
            format!(" ({})", study.importance_method)
        }
    );
    let mut page = page(study, FigureName::ParamImportance, caption);
    let mut rows: Vec<(&str, f64)> = study
        .importance
        .iter()
        .filter(|(_, share)| is_drawable(*share))
        .map(|(name, share)| (name.as_str(), share.clamp(0.0, 1.0)))
        .collect();
    if rows.is_empty() {
        return page.empty("Importance needs at least two finished trials and a parameter that varies.");
    }
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    const MOST: usize = 14;
    if rows.len() > MOST {
        page.note(format!("The {MOST} most important of {} parameters.", rows.len()));
        rows.truncate(MOST);
    }
    let widest = rows.iter().map(|r| font::width(r.0, TICK, Weight::Regular)).fold(0.0, f64::max).min(220.0);
    let body = page.body();
    let left = body.x + widest + 12.0;
    let outer = Rect { x: left, w: body.right() - left, ..body };
    let highest = rows[0].1.max(1e-3);
    let label = match study.importance_method {
        "" => "share of the objective's variance".into(),
        method => format!("share of the objective's variance ({method})"),
    };
    let x = Axis::new(label, Scale::linear(0.0, highest * 1.12));
    let panel = Panel::draw(&mut page.canvas, outer, &x, &Axis::bare("", Scale::linear(0.0, 1.0)));
    let high = panel.area.h / rows.len() as f64;
    for (i, (name, share)) in rows.iter().enumerate() {
        let middle = panel.area.y + high * (i as f64 + 0.5);
        let thick = (high * 0.62).min(34.0);
        let end = panel.px(*share);
        let bar = Rect { x: panel.area.x, y: middle - thick / 2.0, w: end - panel.area.x, h: thick };
        page.canvas.rect(bar, color(0), 1.0);
        let name = fit(name, TICK, Weight::Regular, 220.0);
        page.canvas.text((left - 8.0, middle + 5.0), &name, Font::new(TICK, INK, Anchor::End));
        let share = format!("{:.2}", share);
        page.canvas.text((end + 6.0, middle + 5.0), &share, Font::new(TICK, INK, Anchor::Start));
    }
    panel.frame(&mut page.canvas);
    page.finish()
}

/// The axis of a parameter over the trials that have it.
fn param_scale(param: &Param, values: impl Iterator<Item = f64>, margin: f64) -> Scale {
    match (param.choices.len(), param.log) {
        (0, true) => Scale::log_around(values, margin),
        (0, false) => Scale::around(values, margin),
        (1, _) => Scale::linear(-0.5, 0.5),
        (n, _) => Scale::linear(-0.2, n as f64 - 0.8),
    }
}

/// (value, label) of an axis: its ticks, or the choices.
fn param_ticks(param: &Param, scale: &Scale, count: usize) -> Vec<(f64, String)> {
    if !param.choices.is_empty() {
        let stride = param.choices.len().div_ceil(12);
        return param
            .choices
            .iter()
            .enumerate()
            .step_by(stride)
            .map(|(i, c)| (i as f64, c.clone()))
            .collect();
    }
    let ticks = scale.ticks(count);
    let factor = ticks.factor.unwrap_or_default();
    ticks
        .major
        .into_iter()
        .map(|t| (t.value, if t.label == "0" { t.label } else { t.label + &factor }))
        .collect()
}

/// `parallel_coordinate`: a line a trial through its parameters to its objective.
pub fn parallel_coordinate(study: &Trials) -> Figure {
    let caption = format!(
        "Finished trials of {}, a line each through its parameters to {}; dark lines are the best.",
        study.study, study.objective
    );
    let mut page = page(study, FigureName::ParallelCoordinate, caption);
    let mut done: Vec<(&Trial, f64)> = complete(&study.trials).collect();
    if done.is_empty() {
        return page.empty(NONE);
    }
    if study.params.is_empty() {
        return page.empty("The study varies no parameter.");
    }
    let shown = study.params.len().min(MOST_AXES);
    if shown < study.params.len() {
        page.note(format!("The first {shown} of {} parameters.", study.params.len()));
    }
    page.note("Colour is the rank of the objective: the darker, the better.");
    // The worst first, so that the best lie on top.
    done.sort_by(|a, b| b.1.total_cmp(&a.1));
    let objective = objective_scale(done.iter().map(|d| d.1), 0.04);
    let body = page.body();
    let (top, bottom) = (body.y + 46.0, body.bottom() - 8.0);
    let (left, right) = (body.x + 66.0, body.right() - 74.0);
    let gap = (right - left) / shown as f64;
    let place = |scale: &Scale, v: f64| bottom - scale.place(v) * (bottom - top);
    let scales: Vec<Scale> = (0..shown)
        .map(|i| {
            let values = done.iter().filter_map(|(t, _)| t.params.get(i).copied().flatten());
            param_scale(&study.params[i], values, 0.04)
        })
        .collect();
    let faint = if done.len() > 150 { 0.5 } else { 0.85 };
    for (rank, (trial, v)) in done.iter().enumerate() {
        let mut path = Path::default();
        let mut drawn = false;
        for (i, scale) in scales.iter().enumerate() {
            let at =
                trial.params.get(i).copied().flatten().map(|p| place(scale, p)).filter(|y| y.is_finite());
            let Some(y) = at else {
                drawn = false;
                continue;
            };
            let point = (left + gap * i as f64, y.clamp(top - 4.0, bottom + 4.0));
            if drawn {
                path.line_to(point)
            } else {
                path.move_to(point)
            }
            drawn = true;
        }
        let end = (right, place(&objective, *v));
        if drawn {
            path.line_to(end)
        } else {
            path.move_to(end)
        }
        let share = 1.0 - (rank + 1) as f64 / done.len() as f64;
        let last = rank + 1 == done.len();
        let wide = if last { 2.6 } else { 1.2 };
        page.canvas.path_in(&path, &sequential(share), wide, if last { 1.0 } else { faint });
    }
    let names = study.params[..shown].iter().map(|p| p.name.as_str()).chain([study.objective]);
    let columns = scales.iter().zip(&study.params).map(|(s, p)| param_ticks(p, s, 5));
    let objective_ticks = param_ticks(&Param::default(), &objective, 5);
    for (i, (name, ticks)) in names.zip(columns.chain([objective_ticks])).enumerate() {
        let x = left + gap * i as f64;
        let scale = scales.get(i).unwrap_or(&objective);
        page.canvas.line((x, top - 4.0), (x, bottom + 4.0), Stroke::new(INK, 1.2));
        for (v, label) in ticks {
            let y = place(scale, v);
            if !(top - 4.0..=bottom + 4.0).contains(&y) {
                continue;
            }
            let end = i == shown;
            let label = fit(
                &label,
                SMALL,
                Weight::Regular,
                if end {
                    72.0
                } else if i == 0 {
                    68.0
                } else {
                    (gap - 14.0).min(90.0)
                },
            );
            let wide = font::width(&label, SMALL, Weight::Regular);
            // Labels of inner axes stand on the lines: a little white under them.
            let from = if end || i > 0 { x + 7.0 } else { x - 7.0 - wide };
            page.canvas.rect(Rect { x: from - 2.0, y: y - 8.0, w: wide + 4.0, h: 16.0 }, "#ffffff", 0.8);
            page.canvas.line((x - 4.0, y), (x + 4.0, y), Stroke::new(INK, 1.2));
            page.canvas.text((from, y + 4.5), &label, Font::new(SMALL, INK, Anchor::Start));
        }
        // Neighbouring names take turns in two rows.
        let room = (2.0 * gap - 10.0).min(2.0 * (x - 8.0).min(792.0 - x));
        let name = fit(name, TICK, Weight::Regular, room);
        let row = if shown > 3 && i % 2 == 1 { 20.0 } else { 0.0 };
        page.canvas.text((x, top - 14.0 - row), &name, Font::new(TICK, INK, Anchor::Middle));
    }
    page.finish()
}

/// `contour`: the objective over two parameters, between the trials a weighted mean of them.
///
/// A cell holds Σ wᵢ vᵢ / Σ wᵢ with wᵢ = exp(−rᵢ²/2h²), r the distance in shares of the axes,
/// h = n^(−1/6)/3. A guide for the eye and no model; the trials themselves are drawn on it.
///
/// `first` and `second` are positions in `study.params`.
pub fn contour(study: &Trials, first: usize, second: usize) -> Figure {
    let name = |i: usize| study.params.get(i).map_or("?", |p| p.name.as_str());
    let caption = format!(
        "{} of {} over {} and {}, smoothed between the trials, which are the dots; the ringed dot is the best.",
        study.objective,
        study.study,
        name(first),
        name(second)
    );
    let mut page = page(study, FigureName::Contour, caption);
    let (Some(a), Some(b)) = (study.params.get(first), study.params.get(second)) else {
        return page.empty("A contour needs two parameters.");
    };
    let points: Vec<(f64, f64, f64)> = complete(&study.trials)
        .filter_map(|(t, v)| Some((t.params.get(first).copied()??, t.params.get(second).copied()??, v)))
        .filter(|p| is_drawable(p.0) && is_drawable(p.1))
        .collect();
    let x = param_scale(a, points.iter().map(|p| p.0), 0.05);
    let y = param_scale(b, points.iter().map(|p| p.1), 0.05);
    let placed: Vec<(f64, f64, f64)> = points
        .iter()
        .map(|p| (x.place(p.0), y.place(p.1), p.2))
        .filter(|p| p.0.is_finite() && p.1.is_finite())
        .collect();
    if placed.len() < 3 {
        return page.empty("A contour needs at least three finished trials that have both parameters.");
    }
    let scale = objective_scale(placed.iter().map(|p| p.2), 0.0);
    let body = page.body();
    let (main, key) = body.split(0.85, 26.0);
    let x_axis = Axis { label: a.name.clone(), scale: x, labelled: true };
    let panel = axes_of(&mut page, main, x_axis, a, b, y);
    let area = panel.area;
    let (wide, high) = (area.w / CELLS as f64, area.h / CELLS as f64);
    let h = libm::pow(placed.len() as f64, -1.0 / 6.0) / 3.0;
    // Edges on whole pixels leave no hairlines between neighbours.
    let (left, foot) = (area.x.round(), area.bottom().round());
    let edge_x = |j: usize| (left + wide * j as f64).round().min(area.right());
    let edge_y = |i: usize| (foot - high * i as f64).round().max(area.y);
    for i in 0..CELLS {
        let mut run: Option<(usize, usize)> = None;
        let level = |j: usize| {
            let at = ((j as f64 + 0.5) / CELLS as f64, (i as f64 + 0.5) / CELLS as f64);
            smooth(&placed, at, h, &scale)
        };
        // Neighbouring cells of one level are one rectangle.
        for j in 0..=CELLS {
            let now = (j < CELLS).then(|| level(j));
            if let Some((from, shade)) = run
                && now != Some(shade)
            {
                let (x, y) = (edge_x(from), edge_y(i + 1));
                let cell = Rect { x, y, w: edge_x(j) - x, h: edge_y(i) - y };
                page.canvas.rect(cell, &sequential((shade as f64 + 0.5) / LEVELS as f64), 1.0);
                run = None;
            }
            if let (None, Some(shade)) = (run, now) {
                run = Some((j, shade));
            }
        }
    }
    let best = placed.iter().min_by(|p, q| p.2.total_cmp(&q.2)).copied();
    for p in &placed {
        let at = (area.x + p.0 * area.w, area.bottom() - p.1 * area.h);
        page.canvas.marker(Marker::Circle, at, 3.6, INK, false);
    }
    if let Some(p) = best {
        let at = (area.x + p.0 * area.w, area.bottom() - p.1 * area.h);
        page.canvas.marker(Marker::Circle, at, 7.5, color(1), false);
        page.canvas.marker(Marker::Circle, at, 3.6, color(1), true);
    }
    panel.frame(&mut page.canvas);

    let bar = Rect { x: key.x, y: area.y + 22.0, w: 18.0, h: area.h - 22.0 };
    for l in 0..LEVELS {
        let cell = Rect {
            y: bar.bottom() - bar.h * (l + 1) as f64 / LEVELS as f64,
            h: bar.h / LEVELS as f64 + 0.3,
            ..bar
        };
        page.canvas.rect(cell, &sequential((l as f64 + 0.5) / LEVELS as f64), 1.0);
    }
    let side = Panel { area: bar, x: Scale::linear(0.0, 1.0), y: scale };
    for (v, label) in param_ticks(&Param::default(), &scale, 4) {
        let label = fit(&label, TICK, Weight::Regular, 56.0);
        page.canvas.text((bar.right() + 5.0, side.py(v) + 5.0), &label, Font::new(TICK, INK, Anchor::Start));
    }
    side.frame(&mut page.canvas);
    let label = fit(study.objective, SMALL, Weight::Regular, 800.0 - 12.0 - bar.x);
    page.canvas.text((bar.x, area.y + 8.0), &label, Font::new(SMALL, INK, Anchor::Start));
    page.finish()
}

const LEVELS: usize = 12;

/// Level of a place among the levels of `scale`.
fn smooth(points: &[(f64, f64, f64)], at: (f64, f64), h: f64, scale: &Scale) -> usize {
    let near = points
        .iter()
        .map(|p| (p.0 - at.0) * (p.0 - at.0) + (p.1 - at.1) * (p.1 - at.1))
        .fold(f64::INFINITY, f64::min);
    let (mut sum, mut weights) = (0.0, 0.0);
    for p in points {
        let r = (p.0 - at.0) * (p.0 - at.0) + (p.1 - at.1) * (p.1 - at.1);
        // Relative to the nearest, so that far from all of them there is still a weight.
        let w = libm::exp(-(r - near) / (2.0 * h * h));
        sum += w * scale.place(p.2);
        weights += w;
    }
    ((sum / weights * LEVELS as f64) as usize).min(LEVELS - 1)
}

/// A panel whose axes may be categorical.
fn axes_of(page: &mut Page, outer: Rect, x: Axis, a: &Param, b: &Param, y: Scale) -> Panel {
    let y_ticks = param_ticks(b, &y, 6);
    let widest =
        y_ticks.iter().map(|t| font::width(&t.1, TICK, Weight::Regular)).fold(0.0, f64::max).min(110.0);
    let before = widest + 34.0;
    let area = Rect { x: outer.x + before, y: outer.y + 14.0, w: outer.w - before, h: outer.h - 58.0 };
    let panel = Panel { area, x: x.scale, y };
    for (v, label) in &y_ticks {
        let at = panel.py(*v);
        if at >= area.y && at <= area.bottom() {
            let label = fit(label, TICK, Weight::Regular, 110.0);
            page.canvas.text((area.x - 8.0, at + 5.0), &label, Font::new(TICK, INK, Anchor::End));
            page.canvas.line((area.x - 5.0, at), (area.x, at), Stroke::new(FRAME, 1.0));
        }
    }
    let mut end = f64::NEG_INFINITY;
    for (v, label) in param_ticks(a, &x.scale, 5) {
        let at = panel.px(v);
        let label = fit(&label, TICK, Weight::Regular, 110.0);
        let half = font::width(&label, TICK, Weight::Regular) / 2.0;
        if at >= area.x && at <= area.right() && at - half > end + 10.0 {
            page.canvas.text((at, area.bottom() + 20.0), &label, Font::new(TICK, INK, Anchor::Middle));
            page.canvas.line((at, area.bottom()), (at, area.bottom() + 5.0), Stroke::new(FRAME, 1.0));
            end = at + half;
        }
    }
    let middle = (area.x + area.w / 2.0, area.bottom() + 41.0);
    let label = fit(&x.label, LABEL, Weight::Regular, area.w);
    page.canvas.text(middle, &label, Font::new(LABEL, INK, Anchor::Middle));
    let label = fit(&b.name, LABEL, Weight::Regular, area.h);
    page.canvas.text_up(
        (outer.x + 13.0, area.y + area.h / 2.0),
        &label,
        Font::new(LABEL, INK, Anchor::Middle),
    );
    panel
}

/// `pareto_front`: objective against cost, and the trials that none beats in both.
pub fn pareto(study: &Trials) -> Figure {
    let caption = format!(
        "{} against {} of the finished trials of {}; the line joins those that no other beats in both.",
        study.objective, study.cost, study.study
    );
    let mut page = page(study, FigureName::ParetoFront, caption);
    let points: Vec<(f64, f64)> =
        complete(&study.trials).filter_map(|(t, v)| Some((t.cost.filter(|c| is_drawable(*c))?, v))).collect();
    if points.is_empty() {
        return page.empty("No trial has finished with a value and a cost.");
    }
    let front = front(&points);
    let line = Stroke::new(color(1), 2.2);
    page.legend(&[
        (Sample::Dot(Marker::Circle, "#8c8c8c", true), "trial".into()),
        (Sample::Dot(Marker::Diamond, color(1), true), format!("Pareto front ({})", whole(front.len()))),
    ]);
    let x = objective_scale(points.iter().map(|p| p.0), 0.04);
    let y = objective_scale(points.iter().map(|p| p.1), 0.06);
    let body = page.body();
    let panel =
        Panel::draw(&mut page.canvas, body, &Axis::new(study.cost, x), &Axis::new(study.objective, y));
    let place = |p: &(f64, f64)| (panel.px(p.0), panel.py(p.1));
    let dots: Vec<(f64, f64)> = points.iter().map(place).collect();
    page.canvas.markers(Marker::Circle, &dots, if dots.len() > 300 { 2.6 } else { 4.0 }, "#8c8c8c", 0.7);
    let mut steps = Vec::new();
    for p in &front {
        if let Some(&(_, before)) = steps.last() {
            steps.push((p.0, before));
        }
        steps.push(*p);
    }
    if let Some(&(_, last)) = steps.last() {
        steps.push((x.hi, last));
    }
    panel.line(&mut page.canvas, steps, line);
    let ends: Vec<(f64, f64)> = front.iter().map(place).collect();
    page.canvas.markers(Marker::Diamond, &ends, 6.0, color(1), 1.0);
    panel.frame(&mut page.canvas);
    page.finish()
}

/// The points that none is at most as large as in both coordinates and smaller in one, by the first.
fn front(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for p in sorted {
        if front.last().is_none_or(|last| p.1 < last.1) {
            front.push(p);
        }
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_none_beats() {
        let points = [(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (2.0, 3.0), (4.0, 1.0), (5.0, 0.5), (1.0, 6.0)];
        assert_eq!(front(&points), [(1.0, 5.0), (2.0, 3.0), (3.0, 1.0), (5.0, 0.5)]);
    }
}
