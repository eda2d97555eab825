//! Chains of one length, laid out row after row.

/// Sequences of equal length. At least one, each with at least one draw.
pub(super) struct Table {
    draws: usize,
    values: Vec<f64>,
}

impl Table {
    /// The chains as they are, or `None` where diagnostics are undefined: fewer than `min_chains`
    /// chains or 4 draws, chains of different lengths, a NaN.
    pub fn gather(chains: &[&[f64]], min_chains: usize) -> Option<Self> {
        Self::gather_check(chains, min_chains).map(|draws| Self { draws, values: chains.concat() })
    }

    /// The draws of each chain, where [`gather`](Self::gather) takes them.
    pub fn gather_check(chains: &[&[f64]], min_chains: usize) -> Option<usize> {
        const MIN_DRAWS: usize = 4;
        let draws = chains.first()?.len();
        let sound = chains.len() >= min_chains
            && draws >= MIN_DRAWS
            && chains.iter().all(|c| c.len() == draws && c.iter().all(|x| !x.is_nan()));
        sound.then_some(draws)
    }

    /// Each row as two: first all first halves, then all second halves; the middle draw of an odd
    /// length falls out.
    pub fn split(&self) -> Self {
        let half = self.draws / 2;
        let first = self.rows().flat_map(|row| &row[..half]);
        let second = self.rows().flat_map(|row| &row[self.draws - half..]);
        Self { draws: half, values: first.chain(second).copied().collect() }
    }

    /// The same shape with other values, computed from all of them together.
    pub fn map(&self, f: impl FnOnce(&[f64]) -> Vec<f64>) -> Self {
        let values = f(&self.values);
        debug_assert_eq!(values.len(), self.values.len());
        Self { draws: self.draws, values }
    }

    /// One slice a sequence.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.draws)
    }

    /// Draws a sequence.
    pub fn draws(&self) -> usize {
        self.draws
    }

    /// Everything, row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lengths_lose_their_middle_draw() {
        let table = Table::gather(&[&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]], 1).unwrap();
        let rows: Vec<Vec<f64>> = table.split().rows().map(<[f64]>::to_vec).collect();
        assert_eq!(rows, [[1.0, 2.0], [6.0, 7.0], [4.0, 5.0], [9.0, 10.0]]);
    }

    #[test]
    fn what_cannot_be_diagnosed_is_refused() {
        let good: &[f64] = &[1.0, 2.0, 3.0, 4.0];
        assert!(Table::gather(&[good], 1).is_some());
        assert!(Table::gather(&[], 1).is_none());
        assert!(Table::gather(&[good], 2).is_none());
        assert!(Table::gather(&[&good[..3]], 1).is_none());
        assert!(Table::gather(&[good, &[1.0; 5]], 1).is_none());
        assert!(Table::gather(&[good, &[1.0, f64::NAN, 2.0, 3.0]], 1).is_none());
    }
}
