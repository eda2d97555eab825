//! Networks: hidden widths as given or inferred from a parameter budget.

use super::Network;
use super::section::Section;
use super::{Activation, Init};

/// Width h of `depth` equal hidden layers for a budget of `params` parameters: the positive root of
/// (L−1)h² + (in+L+out)h = P, rounded down, with L = `depth`; for L = 1, (P − out)/(in + 1 + out).
/// At least 1. Exact: integers only, so that a root that is whole is not lost to rounding.
///
/// ```
/// use lambda_hat::config::infer_width;
/// assert_eq!(infer_width(4, 1, 2, 50), 4);
/// assert_eq!(infer_width(32, 1, 3, 10_000), 62);
/// assert_eq!(infer_width(32, 1, 2, 20_000), 125); // 125² + 35·125 = 20000 exactly
/// ```
pub fn infer_width(in_dim: usize, out_dim: usize, depth: usize, params: u64) -> usize {
    let (inputs, outputs) = (in_dim as u128, out_dim as u128);
    let (layers, params) = (depth.max(1) as u128, u128::from(params));
    if layers == 1 {
        return (params.saturating_sub(outputs) / (inputs + 1 + outputs)).max(1) as usize;
    }
    let cost = |h: u128| (layers - 1) * h * h + (inputs + layers + outputs) * h;
    // h² ≤ P, so that the root lies below 2³² and nothing overflows.
    let (mut low, mut high) = (0, 1 << 32);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if cost(middle) <= params {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.max(1) as usize
}

/// The network of a section (model or teacher) with the given inputs and outputs.
pub(super) fn network(section: &Section, in_dim: Option<usize>, out_dim: Option<usize>) -> Option<Network> {
    let hidden = hidden(section, in_dim, out_dim);
    let activation = section.text("activation").as_deref().and_then(activation);
    let residual_period = residual_period(section);
    let (bias, layernorm) = (section.bool("bias"), section.bool("layernorm"));
    Some(Network {
        in_dim: in_dim?,
        hidden: hidden?,
        out_dim: out_dim?,
        activation: activation?,
        bias: bias?,
        layernorm: layernorm?,
        residual_period: residual_period?,
    })
}

/// Hidden widths: `widths` or `depth` and `target_params`, whichever is nearer.
fn hidden(section: &Section, in_dim: Option<usize>, out_dim: Option<usize>) -> Option<Vec<usize>> {
    let layer = |name| section.given(name).map(|g| g.layer);
    let (widths, params, depth) = (layer("widths"), layer("target_params"), layer("depth"));
    if let Some(widths) = widths {
        if widths >= params.max(depth).unwrap_or(0) {
            if Some(widths) == params || Some(widths) == depth {
                section.conflict(
                    "widths",
                    "excludes `depth` and `target_params`, which infer it; give one or the other",
                );
                return None;
            }
            return section.sizes("widths");
        }
        if params < Some(widths) {
            section.conflict(
                "depth",
                "has no effect beside the preset's `widths`; give `target_params` or `widths` as well",
            );
            return None;
        }
    }
    if params.is_none() {
        section.conflict("target_params", "missing; give `target_params` (with `depth`) or `widths`");
        return None;
    }
    let (depth, params) = (section.size("depth"), section.int("target_params"));
    let (depth, params) = (depth?, params?);
    Some(vec![infer_width(in_dim?, out_dim?, depth, params); depth])
}

fn residual_period(section: &Section) -> Option<Option<usize>> {
    if section.bool("skip_connections")? {
        return section.size("residual_period").map(Some);
    }
    section.refuse_idle(&["residual_period"], "without `skip_connections: true`");
    Some(None)
}

pub(super) fn activation(name: &str) -> Option<Activation> {
    match name {
        "relu" => Some(Activation::Relu),
        "tanh" => Some(Activation::Tanh),
        "gelu" => Some(Activation::Gelu),
        "identity" => Some(Activation::Identity),
        _ => None,
    }
}

pub(super) fn init(name: &str) -> Option<Init> {
    match name {
        "he" => Some(Init::He),
        "xavier" => Some(Init::Xavier),
        "lecun" => Some(Init::Lecun),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inferred_widths_are_the_rounded_roots() {
        for (in_dim, out_dim, depth, params) in [
            (4, 1, 2, 50),
            (32, 1, 3, 10_000),
            (32, 1, 8, 10_000),
            (3, 2, 2, 1_000_000_000),
            (1, 1, 40, 77),
            (7, 3, 5, 2),
        ] {
            let cost = |h: u64| (depth - 1) * h * h + (in_dim + depth + out_dim) * h;
            let h = infer_width(in_dim as usize, out_dim as usize, depth as usize, params) as u64;
            assert!(cost(h) <= params || h == 1);
            assert!(cost(h + 1) > params);
        }
        // One hidden layer: (in + 1 + out) h + out = P.
        assert_eq!(infer_width(4, 1, 1, 61), 10);
        assert_eq!(infer_width(4, 1, 1, 60), 9);
        assert_eq!(infer_width(4, 3, 1, 2), 1);
    }
}
