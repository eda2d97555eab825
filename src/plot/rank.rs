//! Ranks of each chain's draws among all draws.

use super::data::{Figure, FigureName, RunSeries};
use super::page::{Axis, Page, Panel, Sample};
use super::run::{FEW, Z, nothing, page};
use super::scale::{Scale, is_drawable, whole};
use super::style::{INK, SMALL, SOFT, TICK, color, diverging};
use super::svg::{Anchor, Font, Rect, Stroke};

const BINS: usize = 20;
/// Draws that are ranked; of more, every so many.
const MOST_DRAWS: usize = 1 << 20;

/// `rank`: how each chain's draws are ranked among those of all chains (Vehtari et al. 2021, section 4).
pub fn rank(run: &RunSeries) -> Figure {
    let caption = format!(
        "Histograms of the ranks of llc of {} on {} among all draws, one a chain, relative to uniform, with the \
         95 % band of chains that mixed; a chain that leans to one side has been elsewhere than the others.",
        run.sampler, run.target
    );
    let mut page = page(run, FigureName::Rank, &caption);
    if let Some(why) = nothing(&run.chains) {
        return page.empty(why);
    }
    let mut chains = run.chains.clone();
    let mut names: Vec<String> = (1..=chains.len()).map(|i| format!("chain {i}")).collect();
    if let [only] = chains[..] {
        if only.len() < 2 {
            return page.empty("Ranks need at least two draws.");
        }
        let (first, second) = only.split_at(only.len() / 2);
        chains = vec![first, second];
        names = vec!["first half".into(), "second half".into()];
        page.note("One chain has none to be compared with: its halves are.");
    }
    let total: usize = chains.iter().map(|c| c.len()).sum();
    let stride = total.div_ceil(MOST_DRAWS).max(1);
    if stride > 1 {
        page.note(format!("Every {}th draw is ranked.", whole(stride)));
    }
    let rows = histograms(&chains, stride);

    // A bin of a chain of n effective draws: sd √((B − 1)/n) relative to its mean, less what the
    // chain has in common with the whole that it is ranked in.
    let m = chains.len() as f64;
    let effective = run.ess.filter(|e| *e > 0.0).unwrap_or(total as f64).min(total as f64) / m;
    let band = Z * ((BINS - 1) as f64 / effective * (1.0 - 1.0 / m)).sqrt();
    if chains.len() <= FEW { bars(page, &rows, &names, band) } else { strip(page, &rows, band) }
}

/// Counts relative to uniform, `[chain][bin]`; NaN for a chain without drawable values. Equal values
/// share their ranks evenly.
fn histograms(chains: &[&[f64]], stride: usize) -> Vec<Vec<f64>> {
    let mut pool: Vec<(f64, u32)> = Vec::new();
    for (i, chain) in chains.iter().enumerate() {
        let values = chain.iter().step_by(stride).filter(|x| is_drawable(**x));
        // −0 and 0 are equal.
        pool.extend(values.map(|&x| (x + 0.0, i as u32)));
    }
    pool.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut counts = vec![vec![0.0; BINS]; chains.len()];
    let per_rank = BINS as f64 / pool.len().max(1) as f64;
    let mut below = 0;
    for tied in pool.chunk_by(|a, b| a.0 == b.0) {
        let (from, to) = (below as f64 * per_rank, (below + tied.len()) as f64 * per_rank);
        let last = (to.ceil() as usize).clamp(1, BINS);
        let first = (from as usize).min(BINS - 1);
        for &(_, chain) in tied {
            for (bin, count) in counts[chain as usize].iter_mut().enumerate().take(last).skip(first) {
                *count += (to.min(bin as f64 + 1.0) - from.max(bin as f64)).max(0.0) / (to - from);
            }
        }
        below += tied.len();
    }
    for row in &mut counts {
        let all: f64 = row.iter().sum();
        for x in row {
            *x = if all > 0.0 { *x * BINS as f64 / all } else { f64::NAN };
        }
    }
    counts
}

/// A small panel a chain.
fn bars(mut page: Page, rows: &[Vec<f64>], names: &[String], band: f64) -> Figure {
    let columns = if rows.len() <= 4 { 2 } else { 4 };
    page.legend(&[
        (Sample::Line(Stroke::new(INK, 1.4)), "uniform".into()),
        (Sample::Line(Stroke::new(INK, 1.2).dash("4 3")), "95 % band of chains that mixed".into()),
    ]);
    let body = page.body();
    let lines = rows.len().div_ceil(columns);
    let left = 58.0;
    let (wide, high) = ((body.w - left + 14.0) / columns as f64, (body.h - 46.0) / lines as f64);
    let most = rows.iter().flatten().copied().filter(|x| x.is_finite()).fold(1.0 + band, f64::max);
    let y = Scale::linear(0.0, most * 1.08);
    for (i, row) in rows.iter().enumerate() {
        let (column, line) = (i % columns, i / columns);
        let area = Rect {
            x: body.x + left + wide * column as f64,
            y: body.y + high * line as f64 + 22.0,
            w: wide - 14.0,
            h: high - 30.0,
        };
        let panel = Panel { area, x: Scale::linear(0.0, 1.0), y };
        let canvas = &mut page.canvas;
        canvas.text((area.x, area.y - 6.0), &names[i], Font::new(TICK, INK, Anchor::Start));
        if column == 0 {
            for tick in y.ticks(3).major {
                let at = (area.x - 6.0, panel.py(tick.value) + 5.0);
                canvas.text(at, &tick.label, Font::new(TICK, INK, Anchor::End));
            }
        }
        let (low, top_of_band) = ((1.0 - band).max(0.0), 1.0 + band);
        panel.band(canvas, [(0.0, low, top_of_band), (1.0, low, top_of_band)], "#7f7f7f", 0.22);
        for (b, &height) in row.iter().enumerate() {
            if height.is_finite() {
                let (x0, x1) = (panel.px(b as f64 / BINS as f64), panel.px((b + 1) as f64 / BINS as f64));
                let top = panel.py(height);
                let bar = Rect { x: x0 + 0.5, y: top, w: x1 - x0 - 1.0, h: area.bottom() - top };
                canvas.rect(bar, color(i), 0.8);
            }
        }
        for edge in [low, top_of_band] {
            panel.across(canvas, edge, Stroke::new(INK, 1.2).dash("4 3"));
        }
        panel.across(canvas, 1.0, Stroke::new(INK, 1.4));
        panel.frame(canvas);
        if row.iter().all(|x| x.is_nan()) {
            page.message(area, "no finite draw");
        }
    }
    let canvas = &mut page.canvas;
    let across = body.x + left + (body.w - left) / 2.0;
    let label = Font::new(super::style::LABEL, INK, Anchor::Middle);
    for column in 0..columns.min(rows.len()) {
        let x = body.x + left + wide * column as f64;
        let foot = body.y + high * lines as f64 + 10.0;
        canvas.text((x, foot), "lowest", Font::new(SMALL, SOFT, Anchor::Start));
        canvas.text((x + wide - 14.0, foot), "highest", Font::new(SMALL, SOFT, Anchor::End));
    }
    canvas.text((across, body.bottom() - 7.0), "rank of llc among all draws (20 bins)", label);
    canvas.text_up((body.x + 13.0, body.y + (body.h - 30.0) / 2.0), "frequency / uniform", label);
    page.finish()
}

/// A strip a chain, coloured.
fn strip(mut page: Page, rows: &[Vec<f64>], band: f64) -> Figure {
    let off = rows.iter().filter(|r| r.iter().filter(|x| (*x - 1.0).abs() > band).count() > BINS / 5).count();
    page.note(format!(
        "95 % band of mixed chains: 1 ± {}. {} of {} chains leave it in more than a fifth of the bins.",
        super::scale::figures(band, 2),
        off,
        rows.len()
    ));
    let body = page.body();
    let (main, key) = body.split(0.88, 24.0);
    let y = Scale::linear(rows.len() as f64 + 0.5, 0.5);
    let x = Axis::bare("rank of llc among all draws, lowest to highest (20 bins)", Scale::linear(0.0, 1.0));
    let panel = Panel::draw(&mut page.canvas, main, &x, &Axis::bare("chain", y));
    let area = Rect { x: panel.area.x + 26.0, w: panel.area.w - 26.0, ..panel.area };
    let (wide, high) = (area.w / BINS as f64, area.h / rows.len() as f64);
    // Full colour at four bands, but not below 1 ± ½ nor beyond 0 and 2.
    let reach = (4.0 * band).clamp(0.5, 1.0);
    for (i, row) in rows.iter().enumerate() {
        for (b, &x) in row.iter().enumerate() {
            let cell = Rect {
                x: area.x + wide * b as f64,
                y: area.y + high * i as f64,
                w: wide + 0.2,
                h: high + 0.2,
            };
            let fill = if x.is_nan() { "#bdbdbd".into() } else { diverging(0.5 + 0.5 * (x - 1.0) / reach) };
            page.canvas.rect(cell, &fill, 1.0);
        }
    }
    let step = rows.len().div_ceil(16);
    for i in (0..rows.len()).filter(|i| (i + 1) % step == 0 || *i == 0) {
        let at = (area.x - 6.0, area.y + high * (i as f64 + 0.5) + 5.0);
        page.canvas.text(at, &(i + 1).to_string(), Font::new(TICK, INK, Anchor::End));
    }
    Panel { area, ..panel }.frame(&mut page.canvas);

    // The key.
    let bar = Rect { x: key.x, y: area.y + 22.0, w: 20.0, h: area.h - 22.0 };
    for i in 0..40 {
        let cell = Rect { y: bar.y + bar.h * f64::from(i) / 40.0, h: bar.h / 40.0 + 0.3, ..bar };
        page.canvas.rect(cell, &diverging(1.0 - (f64::from(i) + 0.5) / 40.0), 1.0);
    }
    let scale = Panel { area: bar, x: Scale::linear(0.0, 1.0), y: Scale::linear(1.0 - reach, 1.0 + reach) };
    for tick in scale.y.ticks(4).major {
        let at = scale.py(tick.value);
        page.canvas.text((bar.right() + 6.0, at + 5.0), &tick.label, Font::new(TICK, INK, Anchor::Start));
    }
    scale.frame(&mut page.canvas);
    page.canvas.text((bar.x, area.y + 8.0), "/ uniform", Font::new(SMALL, INK, Anchor::Start));
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_shifted_chains_lean() {
        let low: Vec<f64> = (0..100).map(f64::from).collect();
        let high: Vec<f64> = (100..200).map(f64::from).collect();
        let rows = histograms(&[&low, &high], 1);
        assert!(
            rows[0][..10].iter().all(|x| (x - 2.0).abs() < 1e-9) && rows[0][10..].iter().all(|x| *x < 1e-9)
        );
        assert!(
            rows[1][..10].iter().all(|x| *x < 1e-9) && rows[1][10..].iter().all(|x| (x - 2.0).abs() < 1e-9)
        );
    }

    #[test]
    fn equal_values_share_their_ranks() {
        let rows = histograms(&[&[1.0; 30], &[1.0, -0.0, 0.0, f64::NAN], &[f64::NAN]], 1);
        assert!((rows[0].iter().sum::<f64>() - BINS as f64).abs() < 1e-9);
        let ties = &rows[0][2..];
        assert!(ties.iter().all(|x| (x - ties[0]).abs() < 1e-9));
        assert!(rows[2].iter().all(|x| x.is_nan()));
    }
}
