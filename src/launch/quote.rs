//! Text as one word: for the shell, and for sbatch's reader of `#SBATCH` lines, which has rules of its own.

use std::borrow::Cow;

/// True for words that neither reader takes apart.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=+,.:/@%".contains(&b))
}

/// One word of a POSIX shell (POSIX 2.2.2: nothing is special between single quotes).
pub fn shell(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''")).into()
}

/// One word of a `#SBATCH` line: there a backslash takes away the meaning of what follows even between quotes
/// (`get_argument` in slurm's sbatch).
pub fn directive(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return text.into();
    }
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with everything that a shell might look at.
    const WORDS: [&str; 10] = [
        "plain",
        "",
        "two words",
        "it's",
        "'",
        "$(touch /tmp/x) `id` $HOME",
        "a\\b\"c",
        "-n",
        "~/x*?[a]{b,c}",
        "é # ; & | < >",
    ];

    #[test]
    fn a_real_shell_reads_back_what_was_quoted() {
        for shell_name in ["sh", "bash"] {
            let words: Vec<_> = WORDS.iter().map(|w| shell(w)).collect();
            let script = format!("printf '%s\\n' {}", words.join(" "));
            let ran = std::process::Command::new(shell_name).args(["-c", &script]).output().unwrap();
            let read = String::from_utf8(ran.stdout).unwrap();
            assert_eq!(read.lines().collect::<Vec<_>>(), WORDS, "{shell_name}");
        }
    }

    #[test]
    fn directives_are_quoted_as_sbatch_reads_them() {
        let quoted: Vec<_> =
            ["a", "a b", "a\"b", "a\\b", "a#b", "it's"].map(|w| directive(w).into_owned()).into();
        assert_eq!(quoted, ["a", "\"a b\"", "\"a\\\"b\"", "\"a\\\\b\"", "\"a#b\"", "\"it's\""]);
    }
}
