//! All figures together: they never fail, never leave the canvas, and repeat to the byte.

use proptest::prelude::*;
use resvg::usvg;

use super::font::{self, Weight};
use super::raster;
use super::style::SIZE;
use super::*;

/// Every figure of a run, a target and a study that have these numbers in them.
fn all_figures(name: &str, chains: &[Vec<f64>], odd: f64) -> Vec<Figure> {
    let slices: Vec<&[f64]> = chains.iter().map(Vec::as_slice).collect();
    let known = Some(odd).filter(|x| x.is_finite());
    let run = RunSeries {
        target: name,
        sampler: name,
        chains: slices.clone(),
        energy: Some(slices),
        fge_warmup: odd,
        fge_sampling: 100.0,
        seconds_warmup: known,
        seconds_sampling: Some(2.0),
        mean: known,
        mcse: known,
        exact_llc: known,
        exact_lambda: known,
        ..RunSeries::default()
    };
    let flat: Vec<f64> = chains.concat();
    let pairs: Vec<(f64, f64)> = flat.iter().copied().zip(flat.iter().rev().copied()).collect();
    let curves = TargetCurves {
        target: name,
        loss: name,
        train: pairs.clone().into(),
        validation: pairs.clone().into(),
        l0: known,
    };
    let predictions = Predictions { target: name, held_out: true, pairs: pairs.into(), observed: false };
    let params = vec![
        Param { name: name.into(), log: true, choices: Vec::new() },
        Param { name: name.into(), log: false, choices: Vec::new() },
        Param { name: name.into(), log: false, choices: vec![name.into(), "b".into()] },
    ];
    let trials = flat
        .iter()
        .enumerate()
        .map(|(number, &x)| Trial {
            number,
            state: [TrialState::Complete, TrialState::Complete, TrialState::Pruned, TrialState::Failed]
                [number % 4],
            value: Some(x),
            cost: Some(x.abs()),
            params: vec![Some(x), known, Some((number % 2) as f64)],
        })
        .collect();
    let study = Trials {
        shortened: 3,
        study: name,
        objective: name,
        cost: name,
        params,
        trials,
        importance: flat.iter().map(|&x| (name.to_string(), x)).collect(),
        importance_method: name,
    };
    let runs = [run.clone(), RunSeries { target: name, sampler: "other", ..RunSeries::default() }];
    vec![
        trace(&run),
        rank(&run),
        energy(&run),
        autocorr(&run),
        running_llc(&run),
        convergence(name, &runs),
        wnv(name, &runs),
        comparison(name, &runs),
        loss_curve(&curves),
        pred_vs_teacher(&predictions),
        optimization_history(&study),
        param_importance(&study),
        parallel_coordinate(&study),
        contour(&study, 0, 1),
        contour(&study, 2, 9),
        pareto(&study),
    ]
}

/// Chains that look like a sampler's.
fn chains(count: usize, draws: usize) -> Vec<Vec<f64>> {
    let mut state = 11u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count).map(|_| (0..draws).map(|_| 10.0 + next() + next()).collect()).collect()
}

/// Where the rasteriser, which shapes the text, says that texts are.
fn check_texts(group: &usvg::Group, figure: &Figure, seen: &mut usize) {
    for node in group.children() {
        match node {
            usvg::Node::Group(inner) => check_texts(inner, figure, seen),
            usvg::Node::Text(text) => {
                *seen += 1;
                let b = text.abs_bounding_box();
                let inside = b.left() >= 0.0
                    && b.top() >= 0.0
                    && f64::from(b.right()) <= SIZE.0
                    && f64::from(b.bottom()) <= SIZE.1;
                let words: String = text.chunks().iter().map(|c| c.text()).collect();
                assert!(inside, "{}: {words:?} at {b:?}", figure.name().stem());
            }
            _ => {}
        }
    }
}

fn check(figures: &[Figure]) {
    for figure in figures {
        let tree = raster::parse(figure.svg())
            .unwrap_or_else(|e| panic!("{}: {e}\n{}", figure.name().stem(), figure.svg()));
        let mut texts = 0;
        check_texts(tree.root(), figure, &mut texts);
        assert!(texts > 0, "{} says nothing", figure.name().stem());
        assert!(!figure.svg().contains("NaN") && !figure.svg().contains("inf\""));
    }
}

#[test]
fn texts_stay_on_the_canvas() {
    for count in [1, 4, 8, 9, 64] {
        for name in
            ["small-data", &"a name that goes on ".repeat(20), "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW"]
        {
            check(&all_figures(name, &chains(count, 60), 9.5));
        }
    }
}

#[test]
fn odd_numbers_make_figures() {
    let tiny = |scale: f64| chains(3, 30).iter().map(|c| c.iter().map(|x| x * scale).collect()).collect();
    let cases: Vec<Vec<Vec<f64>>> = vec![
        vec![],
        vec![vec![]],
        vec![vec![1.0]],
        vec![vec![], vec![2.0, 3.0]],
        vec![vec![f64::NAN; 5]; 2],
        vec![vec![4.0; 50]; 4],
        vec![vec![0.0; 50]; 4],
        vec![vec![-1.0, f64::INFINITY, 3.0, f64::NEG_INFINITY, f64::NAN, 7.0]],
        vec![vec![1e300, -1e300, 1e308, f64::MAX, f64::MIN, 0.0]; 2],
        vec![vec![1e-320, 2e-320, 5e-324, 0.0]; 2],
        vec![vec![1.0, 1.0 + f64::EPSILON, 1.0 + 2.0 * f64::EPSILON]; 2],
        tiny(1e299),
        tiny(1e-299),
        tiny(-1.0),
    ];
    for case in &cases {
        for odd in [0.0, -3.0, 1e300, f64::MAX, f64::INFINITY, f64::NAN, 1e-310] {
            check(&all_figures("odd", case, odd));
        }
    }
}

#[test]
fn what_is_missing_is_said() {
    let said = |figure: Figure, words: &str| {
        assert!(figure.svg().contains(words), "{}: no {words:?}\n{}", figure.name().stem(), figure.svg());
    };
    let mut holed = chains(4, 100);
    holed[1][7] = f64::NAN;
    holed[3][9] = f64::INFINITY;
    let run =
        |chains: &'static [&'static [f64]]| RunSeries { chains: chains.to_vec(), ..RunSeries::default() };
    let with_holes = RunSeries { chains: holed.iter().map(Vec::as_slice).collect(), ..RunSeries::default() };
    said(trace(&with_holes), "2 of 400 draws are not finite and left out.");
    said(trace(&run(&[])), "There are no draws.");
    said(rank(&run(&[&[f64::NAN]])), "None of the draws is finite.");
    said(rank(&run(&[&[1.0, 2.0, 3.0]])), "One chain has none to be compared with");
    said(energy(&with_holes), "This sampler has no energy");
    said(autocorr(&run(&[&[2.0; 9]])), "The draws do not vary");
    said(wnv("t", &[]), "No sampler has a Monte-Carlo standard error");
    said(loss_curve(&TargetCurves::default()), "There is no training history");
    said(pareto(&Trials::default()), "No trial has finished with a value and a cost.");
}

#[test]
fn names_are_escaped() {
    let name = "<script>&\"'\u{0}\u{1b}";
    for figure in all_figures(name, &chains(4, 40), 9.5) {
        assert!(!figure.svg().contains("<script"), "{}", figure.name().stem());
        assert!(figure.svg().contains("&lt;script&gt;&amp;&quot;&apos;"), "{}", figure.name().stem());
        check(&[figure]);
    }
}

#[test]
fn the_same_data_give_the_same_bytes() {
    let make = || all_figures("small-data", &chains(4, 200), 9.5);
    for (a, b) in make().iter().zip(&make()) {
        assert_eq!(a.svg(), b.svg());
        assert_eq!(a.png().unwrap(), b.png().unwrap());
    }
}

#[test]
fn a_png_is_opaque_and_twice_the_size() {
    let png = trace(&RunSeries::default()).png().unwrap();
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!(&png[1..4], b"PNG");
    assert_eq!((number(16), number(20)), (1600, 1000));
    let tree = raster::parse(trace(&RunSeries::default()).svg()).unwrap();
    let mut pixels = resvg::tiny_skia::Pixmap::new(800, 500).unwrap();
    resvg::render(&tree, resvg::tiny_skia::Transform::identity(), &mut pixels.as_mut());
    assert!(pixels.pixels().iter().all(|p| p.alpha() == 255));
}

/// Unlike the sums that the layout makes, these widths come from the shaper.
#[test]
fn measured_widths_hold_for_shaped_text() {
    for text in ["λ̂ = 12.3 ± 0.1", "To AV WA", "10⁻³", "lag (draws)", "−1,000"] {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"90\" font-family=\"{}\">\
             <text x=\"9\" y=\"60\" font-size=\"40\">{text}</text></svg>",
            font::FAMILY
        );
        let tree = raster::parse(&svg).unwrap();
        let shaped = f64::from(tree.root().abs_bounding_box().width());
        let measured = font::width(text, 40.0, Weight::Regular);
        // Kerning narrows; a bounding box lacks the bearings at both ends, a fifth of an em at most.
        assert!(
            shaped <= measured + 1.0 && shaped >= 0.85 * measured - 8.0,
            "{text}: {shaped} of {measured}"
        );
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -100.0..100.0f64,
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(0.0),
        1 => Just(1e300),
    ]
}

/// A work-normalised variance that is a number, but below what a logarithmic axis holds.
#[test]
fn numbers_near_nothing_are_not_placed_beside_the_page() {
    check(&all_figures("", &[], 1.645_821_556_780_824_8e-152));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_numbers_make_figures(
        chains in prop::collection::vec(prop::collection::vec(number(), 0..40), 0..12),
        odd in number(),
        name in ".{0,60}",
    ) {
        check(&all_figures(&name, &chains, odd));
    }

    #[test]
    fn ticks_lie_in_their_range(a in number(), b in number(), count in 1usize..9, log in any::<bool>()) {
        let values = [a, b].into_iter();
        let scale = if log { scale::Scale::log_around(values, 0.05) } else { scale::Scale::around(values, 0.05) };
        let ticks = scale.ticks(count);
        prop_assert!(ticks.major.len() <= 41);
        for tick in &ticks.major {
            let at = scale.place(tick.value);
            prop_assert!((-1e-6..=1.0 + 1e-6).contains(&at), "{tick:?} of {scale:?}");
        }
        let mut labels: Vec<&String> = ticks.major.iter().map(|t| &t.label).collect();
        labels.dedup();
        prop_assert_eq!(labels.len(), ticks.major.len());
    }
}
