//! Bad configurations and what is said about them.
//!
//! Each `tests/data/config/errors/NAME.yaml` is refused with exactly the text of `NAME.txt` beside
//! it. Leading comment lines `# --set a.b=c` are options. `UPDATE_EXPECT=1` rewrites the texts.

use std::fs;
use std::path::{Path, PathBuf};

use lambda_hat::config::{LoadOptions, load, parse};

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config/errors");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

fn message(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let set = text.lines().map_while(|l| l.strip_prefix("# --set ")).map(str::to_owned).collect();
    let name = file.file_name().unwrap().to_str().unwrap();
    let errors = parse(&text, name, &LoadOptions { set, ..LoadOptions::default() });
    format!("{}\n", errors.expect_err(name))
}

#[test]
fn every_bad_configuration_is_refused_in_the_words_on_file() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let cases = cases();
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for file in cases {
        let (found, expected_file) = (message(&file), file.with_extension("txt"));
        if update {
            fs::write(&expected_file, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_file).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}\nexpected:\n{expected}found:\n{found}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_line_names_a_place_and_almost_every_line_a_key() {
    for file in cases() {
        let name = file.file_name().unwrap().to_str().unwrap();
        for line in message(&file).lines() {
            let place = line.split(": ").next().unwrap();
            let numbered = place
                .strip_prefix(&format!("{name}:"))
                .is_some_and(|p| p.split(':').filter(|n| n.parse::<u64>().is_ok_and(|n| n > 0)).count() == 2);
            assert!(numbered || place.starts_with("--set "), "{line}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.yaml");
    let error = load(&missing, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot read it: ", missing.display())), "{error}");

    let pipe = dir.path().join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, dir.path()] {
        let error = load(path, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.ends_with("not a regular file; name a file of YAML"), "{error}");
    }

    let binary = dir.path().join("binary.yaml");
    fs::write(&binary, b"experiment: x\n\xff\xfe").unwrap();
    let error = load(&binary, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("not UTF-8 text (line 2)"), "{error}");
}
