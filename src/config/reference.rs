//! The configuration reference of the documentation, made from the key tables and the presets.

use std::fmt::Write as _;

use super::keys::{LOCAL_CARD, SLURM_CARD, all_tables};
use super::preset::{KINDS, embedded_names, embedded_text};
use super::samplers::DEFINITIONS;
use super::table::{Default, Key, Kind, Table};

const HEAD: &str = "\
# Configuration reference

Every key that an experiment file or a profile card may hold, for those who write one. Made from the tables that the
program checks files against; `UPDATE_EXPECT=1 cargo test --release --test documents` writes it anew, and it fails
without `UPDATE_EXPECT` where it is stale.

Losses, β, γ, rates and sizes of steps have no unit; times are seconds where a key says so. A key without a default must
be given. What stands under *preset* is the value that holds when an entry does not say otherwise: presets go before
defaults. Unknown keys, and values outside their range, are errors that name the line.
";

/// `docs/reference/configuration.md`.
pub fn configuration_reference() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n## Sections\n\n");
    // What `overrides` of a sampler holds beyond its settings is the same for all, and told once.
    let is_shown =
        |t: &&Table| !DEFINITIONS.iter().any(|d| t.name == d.overrides.name || t.name == d.entry.name);
    let tables: Vec<&Table> =
        all_tables().filter(is_shown).chain(DEFINITIONS.iter().map(|d| d.settings)).collect();
    let cards = [&LOCAL_CARD, &SLURM_CARD];
    let sampler_entry = "sampler entry";
    for name in tables.iter().map(|t| t.name).chain([sampler_entry]).chain(cards.map(|t| t.name)) {
        let _ = writeln!(page, "- [{}](#{})", title(name), anchor(name));
    }
    let _ = writeln!(page, "- [presets](#presets)");
    for table in &tables {
        section(&mut page, table);
    }
    sampler_entries(&mut page, sampler_entry);
    for table in cards {
        section(&mut page, table);
    }
    presets(&mut page);
    page
}

fn title(name: &str) -> String {
    name.replace('_', " ")
}

fn anchor(name: &str) -> String {
    title(name).replace(' ', "-")
}

fn section(page: &mut String, table: &Table) {
    let _ = write!(page, "\n## {}\n\n{}\n\n", title(table.name), cell(table.doc));
    page.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in table.keys {
        row(page, key);
    }
}

fn row(page: &mut String, key: &Key) {
    let aliases: String = key.aliases.iter().map(|a| format!(" (or `{a}`)")).collect();
    let (value, default) = (value(&key.kind), default(&key.default));
    let _ = writeln!(page, "| `{}`{aliases} | {value} | {default} | {} |", key.name, cell(key.doc));
}

/// What a sampler entry and its `overrides` hold whatever the sampler.
fn sampler_entries(page: &mut String, name: &str) {
    let _ = write!(
        page,
        "\n## {name}\n\nAn element of `samplers`. `overrides` holds the settings of the named sampler (above) and, beside \
         them, the keys of the second table.\n\n"
    );
    let names: Vec<&str> = DEFINITIONS.iter().map(|d| d.name).collect();
    let Some(first) = DEFINITIONS.first() else { return };
    page.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in first.entry.keys {
        match key.name {
            "name" => {
                let _ =
                    writeln!(page, "| `name` | one of {} | must be given | {} |", names.join(", "), key.doc);
            }
            "overrides" => {
                let _ = writeln!(page, "| `overrides` | a mapping | nothing | {} |", cell(key.doc));
            }
            _ => row(page, key),
        }
    }
    page.push_str(
        "\nUnder `overrides`, for every sampler:\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
    );
    for key in first.overrides.keys.iter().filter(|k| first.settings.key(k.name).is_none()) {
        row(page, key);
    }
}

fn presets(page: &mut String) {
    page.push_str(
        "\n## presets\n\nThe values behind the names of presets. `--presets DIR` puts files \
         `DIR/{model,data,teacher,sampler}/NAME.yaml` of your own before them.\n",
    );
    for kind in KINDS {
        for name in embedded_names(kind) {
            let text = embedded_text(kind, name).unwrap_or_default();
            let _ = write!(page, "\n### {kind} preset {name}\n\n```text\n{}\n```\n", text.trim_end());
        }
    }
}

/// Type and range; the sections that a key leads to as links.
fn value(kind: &Kind) -> String {
    let link = |table: &Table| format!("[{}](#{})", title(table.name), anchor(table.name));
    match kind {
        Kind::Map(table) => format!("a mapping: {}", link(table)),
        Kind::Preset(kind, table) => {
            let names: Vec<String> = embedded_names(kind).map(|n| format!("`{n}`")).collect();
            format!("{}, a preset of yours, or a mapping: {}", names.join(", "), link(table))
        }
        Kind::Entries(tables) if tables.iter().any(|t| t.name.ends_with("_entry")) => {
            "a list of [sampler entries](#sampler-entry)".to_owned()
        }
        Kind::Entries(tables) => {
            let links: Vec<String> = tables.iter().map(|t| link(t)).collect();
            format!("a list; each of {}", links.join(", "))
        }
        Kind::Maybe(inner) => format!("{}, or null", value(inner)),
        Kind::Auto(inner) => format!("{}, or auto", value(inner)),
        other => cell(&other.to_string()),
    }
}

fn default(default: &Default) -> String {
    match *default {
        Default::Required => "must be given".to_owned(),
        Default::Absent(words) => cell(words),
        Default::Bool(b) => b.to_string(),
        Default::Int(i) => i.to_string(),
        Default::Float(x) => format!("{x:?}"),
        Default::Text(text) => format!("`{text}`"),
    }
}

/// Text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
