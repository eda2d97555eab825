//! From SVG to PNG.

use resvg::{tiny_skia, usvg};

use super::data::PlotError;
use super::font;
use super::style::PNG_SCALE;

/// The document as the rasteriser sees it.
pub(super) fn parse(svg: &str) -> Result<usvg::Tree, usvg::Error> {
    let options = usvg::Options {
        font_family: "DejaVu Sans".into(),
        fontdb: font::database(),
        ..usvg::Options::default()
    };
    usvg::Tree::from_str(svg, &options)
}

pub(super) fn png(name: &'static str, svg: &str) -> Result<Vec<u8>, PlotError> {
    let tree = parse(svg).map_err(|e| PlotError::Svg { name, reason: e.to_string() })?;
    let (w, h) = ((tree.size().width() * PNG_SCALE) as u32, (tree.size().height() * PNG_SCALE) as u32);
    let mut pixels = tiny_skia::Pixmap::new(w, h)
        .ok_or_else(|| PlotError::Png { name, reason: format!("{w} × {h} px do not fit") })?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE), &mut pixels.as_mut());
    encode(&pixels).map_err(|e| PlotError::Png { name, reason: e.to_string() })
}

/// Three bytes a pixel, for a page is opaque, in the quick compression of the format.
fn encode(pixels: &tiny_skia::Pixmap) -> Result<Vec<u8>, png::EncodingError> {
    let colours: Vec<u8> =
        pixels.data().as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect();
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, pixels.width(), pixels.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&colours)?;
    writer.finish()?;
    Ok(out)
}
