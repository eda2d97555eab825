//! Sweeps to be planned: networks of many sizes, each with a dozen samplers.

/// The samplers, each on every target. Two to four chains, and a control chain where one belongs.
const SAMPLERS: [&str; 12] = [
    "name: hmc",
    "name: hmc, seed: 2, overrides: { num_integration_steps: 5 }",
    "name: hmc, seed: 3, overrides: { num_integration_steps: 20 }",
    "name: nuts, overrides: { max_tree_depth: 6 }",
    "name: mala",
    "name: mala, seed: 2, overrides: { thin: 5 }",
    "name: mclmc",
    "name: sgld",
    "name: sgld, seed: 2, overrides: { step_size: 1e-6, steps: 400000 }",
    "name: sghmc",
    "name: sgnht",
    "name: vi",
];

/// Units that one target of such a sweep makes.
const UNITS_OF_A_TARGET: usize = 72;

/// An experiment of about `units` units. Sizes of networks and data are log-uniform: 300 to 10 000
/// parameters, 500 to 20 000 rows, by a low-discrepancy sequence in place of a random one.
pub fn yaml(units: usize) -> String {
    let targets = (units / UNITS_OF_A_TARGET).max(1);
    let mut text = String::from("experiment: large\ntargets:\n");
    for i in 0..targets {
        // Steps of the plastic number's powers fill the square evenly (Roberts 2018).
        let (u, v) = ((0.754_877_666 * i as f64).fract(), (0.569_840_296 * i as f64).fract());
        let parameters = (300.0 * (10_000.0_f64 / 300.0).powf(u)).round();
        let rows = (500.0 * 40.0_f64.powf(v)).round();
        text.push_str(&format!(
            "  - {{ model: base, data: base, teacher: _null, seed: {i}, overrides: {{ model: {{ target_params: {parameters} }}, data: {{ n_data: {rows} }}, training: {{ steps: 5000 }} }} }}\n"
        ));
    }
    text.push_str("samplers:\n");
    text.extend(SAMPLERS.iter().map(|sampler| format!("  - {{ {sampler} }}\n")));
    text
}
