//! Figures of one run: trace, ranks, energy, autocorrelation, running mean.

use super::data::{Figure, FigureName, RunSeries};
use super::page::{Axis, Page, Panel, Sample};
use super::scale::{Scale, figures, is_drawable, whole, with_error};
use super::series::{
    autocorrelation, autocorrelation_time, count_undrawable, density, even_grid, running, thin,
};
use super::style::{INK, SOFT, color, dash};
use super::svg::Stroke;
use crate::stats;

/// More chains than this are drawn as a crowd.
pub(super) const FEW: usize = 8;
/// Stretches of draws of which the extremes are drawn: one for two device px of the panel.
const BUCKETS: usize = 500;
const CROWD_BUCKETS: usize = 250;
/// Width of dense lines: a device px, which the rasteriser draws ten times as fast as any more.
const THIN: f64 = 0.5;
/// 97.5 % quantile of the normal law.
pub(super) const Z: f64 = 1.959_963_984_540_054;

/// A page with a run's names and numbers above.
pub(super) fn page(run: &RunSeries, name: FigureName, caption: &str) -> Page {
    let mut facts = Vec::new();
    if let Some(mean) = run.mean {
        let error = run.mcse.map_or_else(|| figures(mean, 4), |mcse| with_error(mean, mcse));
        facts.push(format!("λ̂ = {error} nats"));
    }
    facts.push(match run.r_hat {
        Some(r_hat) => format!("R-hat {}", figures(r_hat, 4)),
        None => "R-hat undefined".into(),
    });
    if let Some(ess) = run.ess {
        facts.push(format!("ESS {}", whole(ess.max(0.0) as usize)));
    }
    let draws = run.chains.iter().map(|c| c.len()).max().unwrap_or(0);
    let count = |n: usize, what: &str| format!("{} {what}{}", whole(n), if n == 1 { "" } else { "s" });
    facts.push(format!("{} × {}", count(run.chains.len(), "chain"), count(draws, "draw")));
    if let Some(verdict) = run.verdict {
        facts.push(verdict.to_string());
    }
    let title = format!("{} · {}", run.target, run.sampler);
    let mut page = Page::new(name, &title, &facts.join("  ·  "), caption);
    note_undrawable(&mut page, &run.chains, "draws");
    page
}

pub(super) fn note_undrawable(page: &mut Page, chains: &[&[f64]], what: &str) {
    let (bad, all) = count_undrawable(chains);
    if bad > 0 {
        page.note(format!("{} of {} {what} are not finite and left out.", whole(bad), whole(all)));
    }
}

/// What there is to say where nothing can be drawn.
pub(super) fn nothing(chains: &[&[f64]]) -> Option<&'static str> {
    let (bad, all) = count_undrawable(chains);
    match (bad, all) {
        (_, 0) => Some("There are no draws."),
        _ if bad == all => Some("None of the draws is finite."),
        _ => None,
    }
}

fn all<'a>(chains: &'a [&'a [f64]]) -> impl Iterator<Item = &'a f64> + Clone {
    chains.iter().flat_map(|c| c.iter())
}

fn longest(chains: &[&[f64]]) -> usize {
    chains.iter().map(|c| c.len()).max().unwrap_or(0)
}

fn draw_axis(draws: usize) -> Axis {
    Axis::new("draw", Scale::linear(if draws > 1 { 1.0 } else { 0.0 }, draws.max(8) as f64))
}

/// How the chains are drawn: a colour and dash each, or faint, with the two outermost in colour.
struct Dress {
    strokes: Vec<Stroke>,
    /// In the order in which they are painted.
    order: Vec<usize>,
    legend: Vec<(Sample, String)>,
}

fn dress(chains: &[&[f64]], width: f64, dashed: bool) -> Dress {
    let n = chains.len();
    let mut order: Vec<usize> = (0..n).collect();
    if n <= FEW {
        let stroke = |i| Stroke::new(color(i), width).dash(if dashed { dash(i) } else { "" });
        let strokes: Vec<Stroke> = (0..n).map(stroke).collect();
        let key = |s: &Stroke| Sample::Line(Stroke { width: 2.4, ..*s });
        let legend = match n {
            0 | 1 => Vec::new(),
            _ => strokes.iter().enumerate().map(|(i, s)| (key(s), format!("chain {}", i + 1))).collect(),
        };
        return Dress { strokes, order, legend };
    }
    let faint = Stroke::new("#6f8fa8", THIN).opacity(if n > 24 { 0.3 } else { 0.45 });
    let mut strokes = vec![faint; n];
    let mut legend =
        vec![(Sample::Line(Stroke { width: 1.6, opacity: 0.8, ..faint }), format!("{n} chains"))];
    let means: Vec<(usize, f64)> = chains
        .iter()
        .enumerate()
        .map(|(i, c)| (i, running(&[c], &[c.len()]).first().map_or(f64::NAN, |m| m.mean)))
        .filter(|(_, m)| m.is_finite())
        .collect();
    let lowest = means.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let highest = means.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    for (found, which, series) in [(lowest, "lowest", 0), (highest, "highest", 1)] {
        if let Some(&(i, _)) = found {
            strokes[i] = Stroke::new(color(series), 1.0).dash(if dashed { dash(series) } else { "" });
            let sample = Sample::Line(Stroke { width: 2.4, ..strokes[i] });
            legend.push((sample, format!("{which} mean: chain {}", i + 1)));
            order.retain(|&j| j != i);
            order.push(i);
        }
    }
    Dress { strokes, order, legend }
}

/// `trace`: llc of every chain against the draw, and beside it the density of each.
pub fn trace(run: &RunSeries) -> Figure {
    let caption = format!(
        "Draws of llc of {} on {}, a line a chain, with a smooth density of each chain at the right; chains \
         that mixed look alike and flat.",
        run.sampler, run.target
    );
    let mut page = page(run, FigureName::Trace, &caption);
    if let Some(why) = nothing(&run.chains) {
        return page.empty(why);
    }
    let few = run.chains.len() <= FEW;
    let dress = dress(&run.chains, if longest(&run.chains) > 300 { THIN } else { 1.0 }, false);
    let mut legend = dress.legend;
    if let Some(exact) = run.exact_llc {
        legend.push((Sample::Line(exact_stroke()), format!("exact {}", figures(exact, 4))));
    }
    page.legend(&legend);
    let pooled = density(all(&run.chains));
    if pooled.is_none() {
        page.note("The draws do not vary: there is no density to draw.");
    }

    let y = Scale::around(all(&run.chains).copied(), 0.03);
    if run.exact_llc.is_some_and(|exact| !(0.0..=1.0).contains(&y.place(exact))) {
        page.note("The exact value lies outside the panel.");
    }
    let (left, right) = page.body().split(0.77, 14.0);
    let panel =
        Panel::draw(&mut page.canvas, left, &draw_axis(longest(&run.chains)), &Axis::new("llc (nats)", y));
    for &i in &dress.order {
        let points = thin(run.chains[i], if few { BUCKETS } else { CROWD_BUCKETS });
        panel.line(&mut page.canvas, points, dress.strokes[i]);
    }
    exact_line(&mut page, &panel, run.exact_llc);
    panel.frame(&mut page.canvas);

    let each: Vec<(usize, Vec<(f64, f64)>)> =
        dress.order.iter().filter_map(|&i| Some((i, density(run.chains[i].iter())?))).collect();
    let highest = each.iter().flat_map(|(_, d)| d.iter().map(|p| p.1)).fold(0.0, f64::max);
    let x = Scale::linear(0.0, 1.06);
    let side = Panel::draw(&mut page.canvas, right, &Axis::bare("density", x), &Axis::bare("", y));
    let side = Panel { area: super::svg::Rect { y: panel.area.y, h: panel.area.h, ..side.area }, ..side };
    for (i, points) in each {
        let stroke = Stroke { width: if few { 1.8 } else { dress.strokes[i].width }, ..dress.strokes[i] };
        side.line(&mut page.canvas, points.into_iter().map(|(v, d)| (d / highest, v)), stroke);
    }
    if !few && let Some(points) = pooled {
        side.line(&mut page.canvas, points.into_iter().map(|(v, d)| (d / highest, v)), Stroke::new(INK, 2.0));
    }
    if highest == 0.0 {
        page.message(side.area, "no spread");
    }
    exact_line(&mut page, &side, run.exact_llc);
    side.frame(&mut page.canvas);
    page.finish()
}

pub(super) fn exact_stroke() -> Stroke {
    Stroke::new(INK, 1.8).dash("9 4")
}

fn exact_line(page: &mut Page, panel: &Panel, exact: Option<f64>) {
    if let Some(exact) = exact {
        panel.across(&mut page.canvas, exact, exact_stroke());
    }
}

/// `energy`: density of the energy about its mean beside that of its change from draw to draw.
pub fn energy(run: &RunSeries) -> Figure {
    let caption = format!(
        "Energy of {} on {}: how far draws lie from the mean energy, and how far one draw moves it; the second \
         much narrower than the first means slow exploration (Betancourt 2016).",
        run.sampler, run.target
    );
    let mut page = page(run, FigureName::Energy, &caption);
    let Some(chains) = run.energy.as_ref().filter(|e| !e.is_empty()) else {
        return page.empty("This sampler has no energy: it simulates no Hamiltonian dynamics.");
    };
    let (energy_bad, energy_all) = count_undrawable(chains);
    if energy_bad > 0 {
        page.note(format!("{} of {} energies are not finite.", whole(energy_bad), whole(energy_all)));
    }
    if let Some(why) = nothing(chains) {
        return page.empty(why);
    }
    let centre = running(chains, &[longest(chains)]).first().map_or(0.0, |m| m.mean);
    let marginal: Vec<f64> = all(chains).filter(|x| is_drawable(**x)).map(|x| x - centre).collect();
    let steps: Vec<f64> = chains
        .iter()
        .flat_map(|c| c.windows(2))
        .filter(|pair| is_drawable(pair[0]) && is_drawable(pair[1]))
        .map(|pair| pair[1] - pair[0])
        .collect();
    let (Some(marginal), Some(steps)) = (density(marginal.iter()), density(steps.iter())) else {
        return page.empty("The energy does not vary, or there are too few draws: no density can be drawn.");
    };
    let worst = chains.iter().map(|c| stats::e_bfmi(c)).filter(|x| x.is_finite()).reduce(f64::min);
    let fraction = match (worst, chains.len()) {
        (None, _) => "E-BFMI undefined".into(),
        (Some(x), 1) => format!("E-BFMI {}", figures(x, 2)),
        (Some(x), n) => format!("lowest E-BFMI of {n} chains {}", figures(x, 2)),
    };
    let (of_draws, of_steps) = (Stroke::new(color(0), 2.4), Stroke::new(color(1), 2.4).dash(dash(1)));
    page.legend(&[
        (Sample::Area(of_draws), "energy − its mean".into()),
        (Sample::Area(of_steps), "change from draw to draw".into()),
    ]);
    page.note(format!("{fraction}; below 0.3 the draws explore too slowly."));
    let x = Scale::around(marginal.iter().chain(&steps).map(|p| p.0), 0.0);
    let highest = marginal.iter().chain(&steps).map(|p| p.1).fold(0.0, f64::max);
    let body = page.body();
    let panel = Panel::draw(
        &mut page.canvas,
        body,
        &Axis::new("energy (nats)", x),
        &Axis::bare("density", Scale::linear(0.0, 1.05)),
    );
    for (mut points, stroke) in [(marginal, of_draws), (steps, of_steps)] {
        for p in &mut points {
            p.1 /= highest;
        }
        let band = points.iter().map(|&(v, d)| (v, 0.0, d));
        panel.band(&mut page.canvas, band, stroke.color, 0.18);
        panel.line(&mut page.canvas, points, stroke);
    }
    panel.frame(&mut page.canvas);
    page.finish()
}

/// `autocorr`: autocorrelation of llc against the lag, a line a chain, with the band of white noise.
pub fn autocorr(run: &RunSeries) -> Figure {
    let caption = format!(
        "Autocorrelation of llc of {} on {} against the lag, a line a chain, and the band ±1.96/√N that \
         independent draws stay in; the sooner it falls to zero, the more each draw is worth.",
        run.sampler, run.target
    );
    let mut page = page(run, FigureName::Autocorr, &caption);
    if let Some(why) = nothing(&run.chains) {
        return page.empty(why);
    }
    let draws = longest(&run.chains);
    let time = autocorrelation_time(&run.chains, run.ess);
    let reach = ((12.0 * time) as usize).clamp(40, 5000).min(draws.saturating_sub(1));
    // All lags up to 100; beyond, every so many.
    let stride = reach.div_ceil(100).max(1);
    let lags: Vec<usize> = (0..=reach).step_by(stride).collect();
    let lines: Vec<Vec<f64>> = run.chains.iter().map(|c| autocorrelation(c, &lags)).collect();
    if reach == 0 || lines.iter().flatten().all(|r| r.is_nan()) {
        return page.empty("The draws do not vary, or there is only one: autocorrelation is undefined.");
    }
    let dress = dress(&run.chains, 1.8, true);
    let mut legend = dress.legend;
    legend.push((Sample::Band("#7f7f7f", 0.25), "independent draws (95 %)".into()));
    page.legend(&legend);
    let lowest = lines.iter().flatten().copied().filter(|r| r.is_finite()).fold(-0.1, f64::min);
    let body = page.body();
    let panel = Panel::draw(
        &mut page.canvas,
        body,
        &Axis::new("lag (draws)", Scale::linear(0.0, reach as f64)),
        &Axis::new("autocorrelation of llc", Scale::linear(lowest - 0.05, 1.05)),
    );
    let band = Z / (draws as f64).sqrt();
    panel.band(&mut page.canvas, [(0.0, -band, band), (reach as f64, -band, band)], "#7f7f7f", 0.25);
    panel.across(&mut page.canvas, 0.0, Stroke::new(SOFT, 1.0));
    for &i in &dress.order {
        panel.line(
            &mut page.canvas,
            lags.iter().map(|&k| k as f64).zip(lines[i].iter().copied()),
            dress.strokes[i],
        );
    }
    if run.chains.len() > FEW {
        let mean = |k: usize| {
            let at: Vec<f64> = lines.iter().map(|l| l[k]).filter(|r| r.is_finite()).collect();
            stats::mean(&at)
        };
        let points = lags.iter().enumerate().map(|(k, &lag)| (lag as f64, mean(k)));
        panel.line(&mut page.canvas, points, Stroke::new(INK, 2.2));
    }
    panel.frame(&mut page.canvas);
    page.finish()
}

/// `running_llc`: mean llc of all draws so far with its 95 % band, and that of each chain.
pub fn running_llc(run: &RunSeries) -> Figure {
    let caption = format!(
        "Mean llc of the draws so far of {} on {}, with the band of ±1.96 Monte-Carlo standard errors, and the \
         means of single chains; it should have settled well before the end.",
        run.sampler, run.target
    );
    let mut page = page(run, FigureName::RunningLlc, &caption);
    if let Some(why) = nothing(&run.chains) {
        return page.empty(why);
    }
    let draws = longest(&run.chains);
    let grid = even_grid(draws, 400);
    let pooled = running(&run.chains, &grid);
    let time = autocorrelation_time(&run.chains, run.ess);
    let curve: Vec<(f64, f64, f64, f64)> = pooled.iter().map(|m| banded(m, time)).collect();
    let each: Vec<Vec<(f64, f64)>> = run
        .chains
        .iter()
        .map(|c| running(&[c], &grid).iter().map(|m| (m.draws as f64, m.mean)).collect())
        .collect();

    let dress = dress(&run.chains, 1.2, true);
    let together = Stroke::new(INK, 2.6);
    let mut legend = vec![
        (Sample::Line(together), if each.len() == 1 { "mean so far".into() } else { "all chains".into() }),
        (Sample::Band("#7f7f7f", 0.3), "95 % band".into()),
    ];
    if let Some(exact) = run.exact_llc {
        legend.push((Sample::Line(exact_stroke()), format!("exact {}", figures(exact, 4))));
    }
    legend.extend(dress.legend);
    page.legend(&legend);

    // The first twentieth may leave the panel: it would squeeze the rest.
    let settled = |k: f64| k >= draws as f64 / 20.0;
    let bands = curve.iter().filter(|p| settled(p.0)).flat_map(|p| [p.1, p.2, p.3]);
    let singles = each.iter().flatten().filter(|p| settled(p.0)).map(|p| p.1);
    let y = Scale::around(bands.chain(singles).chain(run.exact_llc).filter(|x| x.is_finite()), 0.05);
    let body = page.body();
    let panel =
        Panel::draw(&mut page.canvas, body, &draw_axis(draws), &Axis::new("mean llc so far (nats)", y));
    panel.band(&mut page.canvas, curve.iter().map(|p| (p.0, p.2, p.3)), "#7f7f7f", 0.3);
    if each.len() > 1 {
        for &i in &dress.order {
            panel.line(&mut page.canvas, each[i].iter().copied(), dress.strokes[i]);
        }
    }
    exact_line(&mut page, &panel, run.exact_llc);
    panel.line(&mut page.canvas, curve.iter().map(|p| (p.0, p.1)), together);
    panel.frame(&mut page.canvas);
    page.finish()
}

/// (draws, mean, low, high): the mean with ±1.96·sd·√(τ/count), τ the autocorrelation time of the
/// whole run.
pub(super) fn banded(m: &super::series::Moments, time: f64) -> (f64, f64, f64, f64) {
    let reach = Z * m.sd * (time / m.count.max(1) as f64).sqrt();
    (m.draws as f64, m.mean, m.mean - reach, m.mean + reach)
}
