//! Figures for the page: SVG in data URIs, so that nothing in one can clash with the page or with another.

use serde::Serialize;

use super::encode::base64;
use crate::plot::Figure;

/// A figure on the page.
#[derive(Debug, Serialize)]
pub(super) struct Picture {
    /// What it is, in a few words.
    pub what: &'static str,
    /// One sentence; the alternative text, too.
    pub caption: String,
    /// `data:image/svg+xml;base64,…`
    pub uri: String,
}

impl From<Figure> for Picture {
    fn from(figure: Figure) -> Self {
        Self {
            what: figure.name().what(),
            caption: figure.caption().to_owned(),
            uri: format!("data:image/svg+xml;base64,{}", base64(figure.svg().as_bytes())),
        }
    }
}
