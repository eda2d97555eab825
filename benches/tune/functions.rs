//! The functions of the comparison; `optuna_reference.py` has the same ones, and its points check that.

use std::f64::consts::{E, PI};

use lambda_hat::config::tune::{Condition, Dimension, Domain, Scalar};
use lambda_hat::tune::space::{Params, Space};

/// A function of parameters, and the noise it is seen with.
pub struct Function {
    pub name: &'static str,
    pub dimensions: Vec<Dimension>,
    pub value: fn(&Params) -> f64,
    /// Standard deviation of the noise.
    pub noise: f64,
}

impl Function {
    pub fn space(&self) -> Space {
        Space::new(&self.dimensions).expect("a valid space")
    }
}

fn number(params: &Params, name: &str) -> f64 {
    match params.get(name) {
        Some(Scalar::Float(x)) => *x,
        Some(Scalar::Int(i)) => *i as f64,
        other => panic!("{name} is {other:?}"),
    }
}

fn text<'a>(params: &'a Params, name: &str) -> &'a str {
    match params.get(name) {
        Some(Scalar::Text(text)) => text,
        other => panic!("{name} is {other:?}"),
    }
}

fn vector(params: &Params, n: usize) -> Vec<f64> {
    (0..n).map(|i| number(params, &format!("x{i}"))).collect()
}

fn dimension(name: &str, domain: Domain) -> Dimension {
    Dimension { name: name.to_owned(), domain, when: Vec::new() }
}

fn float(name: &str, low: f64, high: f64) -> Dimension {
    dimension(name, Domain::Float { low, high, log: false, step: None })
}

fn log(name: &str, low: f64, high: f64) -> Dimension {
    dimension(name, Domain::Float { low, high, log: true, step: None })
}

fn stepped(name: &str, low: f64, high: f64, step: f64) -> Dimension {
    dimension(name, Domain::Float { low, high, log: false, step: Some(step) })
}

fn int(name: &str, low: i64, high: i64, step: i64) -> Dimension {
    dimension(name, Domain::Int { low, high, log: false, step })
}

fn int_log(name: &str, low: i64, high: i64) -> Dimension {
    dimension(name, Domain::Int { low, high, log: true, step: 1 })
}

fn choice(name: &str, choices: &[&str]) -> Dimension {
    let choices = choices.iter().map(|c| Scalar::Text((*c).to_owned())).collect();
    dimension(name, Domain::Categorical { choices })
}

fn when(parent: &str, value: &str, mut child: Dimension) -> Dimension {
    child.when.push(Condition { parent: parent.to_owned(), values: vec![Scalar::Text(value.to_owned())] });
    child
}

fn cube(n: usize, low: f64, high: f64) -> Vec<Dimension> {
    (0..n).map(|i| float(&format!("x{i}"), low, high)).collect()
}

fn sphere(p: &Params) -> f64 {
    vector(p, 5).iter().map(|x| x * x).sum()
}

fn rosenbrock(p: &Params) -> f64 {
    let x = vector(p, 4);
    (0..3).map(|i| 100.0 * (x[i + 1] - x[i] * x[i]).powi(2) + (1.0 - x[i]).powi(2)).sum()
}

fn ackley(p: &Params) -> f64 {
    let x = vector(p, 5);
    let root = (x.iter().map(|v| v * v).sum::<f64>() / 5.0).sqrt();
    let waves = x.iter().map(|v| (2.0 * PI * v).cos()).sum::<f64>() / 5.0;
    -20.0 * (-0.2 * root).exp() - waves.exp() + 20.0 + E
}

fn rastrigin(p: &Params) -> f64 {
    vector(p, 4).iter().map(|v| v * v - 10.0 * (2.0 * PI * v).cos() + 10.0).sum()
}

fn branin(p: &Params) -> f64 {
    let (x, y) = (number(p, "x0"), number(p, "x1"));
    let a = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
    a * a + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0
}

const ALPHA: [f64; 4] = [1.0, 1.2, 3.0, 3.2];

fn hartmann<const N: usize>(x: &[f64], a: &[[f64; N]; 4], p: &[[f64; N]; 4]) -> f64 {
    let inner = |i: usize| (0..N).map(|j| a[i][j] * (x[j] - p[i][j]).powi(2)).sum::<f64>();
    -(0..4).map(|i| ALPHA[i] * (-inner(i)).exp()).sum::<f64>()
}

fn hartmann3(p: &Params) -> f64 {
    let a = [[3.0, 10.0, 30.0], [0.1, 10.0, 35.0], [3.0, 10.0, 30.0], [0.1, 10.0, 35.0]];
    let c = [
        [0.3689, 0.1170, 0.2673],
        [0.4699, 0.4387, 0.7470],
        [0.1091, 0.8732, 0.5547],
        [0.0381, 0.5743, 0.8828],
    ];
    hartmann(&vector(p, 3), &a, &c)
}

fn hartmann6(p: &Params) -> f64 {
    let a = [
        [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
        [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
        [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
        [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
    ];
    let c = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ];
    hartmann(&vector(p, 6), &a, &c)
}

fn logs(p: &Params) -> f64 {
    let (a, b) = (number(p, "lr").log10() + 3.0, number(p, "decay").log10() + 5.0);
    let c = number(p, "width").log2() - 7.0;
    a * a + 0.25 * b * b + 0.1 * c * c + 0.3 * a * b
}

fn steps(p: &Params) -> f64 {
    let [x, y, n, m] = ["x", "y", "n", "m"].map(|name| number(p, name));
    (x - 1.5).powi(2) + 20.0 * (y - 0.35).powi(2) + 0.02 * (n - 13.0).powi(2) + ((m - 650.0) / 200.0).powi(2)
}

fn mixed(p: &Params) -> f64 {
    let (best, cost) = match text(p, "precond") {
        "none" => (-4.5, 1.2),
        "rmsprop" => (-3.0, 0.1),
        _ => (-2.5, 0.4),
    };
    let rows = match text(p, "batch_size") {
        "32" => 0.9,
        "64" => 0.2,
        "128" => 0.0,
        _ => 0.5,
    };
    (number(p, "step_size").log10() - best).powi(2) + rows + cost + 2000.0 / number(p, "steps")
}

fn choices(p: &Params) -> f64 {
    let k: Vec<i32> = (0..6).map(|i| text(p, &format!("c{i}")).parse().expect("a digit")).collect();
    let cost: i32 = (0..6).map(|i| (k[i] - (2 * i as i32 + 1) % 5).abs()).sum();
    f64::from(cost) + if k[0] + k[1] == 4 { 0.0 } else { 1.5 }
}

fn conditional(p: &Params) -> f64 {
    match text(p, "kind") {
        "linear" => 1.0 + 0.2 * (number(p, "c").log10() - 1.0).powi(2),
        "tree" => 0.6 + 0.01 * (number(p, "depth") - 9.0).powi(2) + 2.0 * (number(p, "rate") - 0.3).powi(2),
        _ => {
            0.2 * (number(p, "lr").log10() + 2.5).powi(2)
                + 0.15 * (number(p, "layers") - 3.0).abs()
                + 1.5 * (number(p, "drop") - 0.25).powi(2)
        }
    }
}

fn nested(p: &Params) -> f64 {
    let x = number(p, "x");
    if text(p, "algo") == "mfa" {
        return 0.5 + 0.3 * (x - 1.0).powi(2) + 0.05 * (number(p, "m") - 8.0).abs();
    }
    let depth = number(p, "depth");
    if text(p, "type") == "affine" {
        return 0.4 + 0.3 * (x + 1.0).powi(2) + 0.1 * (depth - 4.0).abs();
    }
    let bins = number(p, "bins").log2();
    0.3 * (x + 2.0).powi(2) + 0.1 * (depth - 6.0).abs() + 0.2 * (bins - 3.0).powi(2)
}

/// All of them.
pub fn functions() -> Vec<Function> {
    let function = |name, dimensions, value, noise| Function { name, dimensions, value, noise };
    let sphere_cube = || cube(5, -5.12, 5.12);
    let branin_square = || vec![float("x0", -5.0, 10.0), float("x1", 0.0, 15.0)];
    let mixed_space = || {
        vec![
            log("step_size", 1e-6, 1e-1),
            choice("batch_size", &["32", "64", "128", "256"]),
            choice("precond", &["none", "rmsprop", "adam"]),
            int("steps", 5000, 20000, 1000),
        ]
    };
    let digits = |i: usize| choice(&format!("c{i}"), &["0", "1", "2", "3", "4"]);
    vec![
        function("sphere", sphere_cube(), sphere as fn(&Params) -> f64, 0.0),
        function("rosenbrock", cube(4, -5.0, 10.0), rosenbrock, 0.0),
        function("ackley", cube(5, -32.768, 32.768), ackley, 0.0),
        function("rastrigin", cube(4, -5.12, 5.12), rastrigin, 0.0),
        function("branin", branin_square(), branin, 0.0),
        function("hartmann3", cube(3, 0.0, 1.0), hartmann3, 0.0),
        function("hartmann6", cube(6, 0.0, 1.0), hartmann6, 0.0),
        function(
            "logs",
            vec![log("lr", 1e-6, 1e-1), log("decay", 1e-8, 1e-1), int_log("width", 4, 4096)],
            logs,
            0.0,
        ),
        function(
            "steps",
            vec![
                stepped("x", -5.0, 5.0, 0.25),
                stepped("y", 0.0, 1.0, 0.05),
                int("n", 1, 40, 1),
                int("m", 0, 1000, 50),
            ],
            steps,
            0.0,
        ),
        function("mixed", mixed_space(), mixed, 0.0),
        function("choices", (0..6).map(digits).collect(), choices, 0.0),
        function(
            "conditional",
            vec![
                choice("kind", &["linear", "tree", "net"]),
                when("kind", "linear", log("c", 1e-4, 1e4)),
                when("kind", "tree", int("depth", 1, 32, 1)),
                when("kind", "tree", float("rate", 0.0, 1.0)),
                when("kind", "net", log("lr", 1e-5, 1.0)),
                when("kind", "net", int("layers", 1, 6, 1)),
                when("kind", "net", float("drop", 0.0, 0.9)),
            ],
            conditional,
            0.0,
        ),
        function(
            "nested",
            vec![
                float("x", -4.0, 4.0),
                choice("algo", &["mfa", "flow"]),
                when("algo", "mfa", int("m", 1, 16, 1)),
                when("algo", "flow", int("depth", 1, 8, 1)),
                when("algo", "flow", choice("type", &["affine", "spline"])),
                when("type", "spline", int_log("bins", 2, 32)),
            ],
            nested,
            0.0,
        ),
        function("noisy_sphere", sphere_cube(), sphere, 4.0),
        function("noisy_branin", branin_square(), branin, 5.0),
        function("noisy_mixed", mixed_space(), mixed, 0.5),
    ]
}
