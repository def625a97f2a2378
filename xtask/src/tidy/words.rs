//! Turns of phrase that a reader of the field stumbles over, and long lines in Markdown.

use std::path::Path;

use anyhow::Result;

/// Words and turns that are not used, with what to write instead. CONTRIBUTING has the reasons.
const BANNED: [(&str, &str); 12] = [
    ("whoever", "the caller, the worker, the reader"),
    ("nobody", "no step, no thread"),
    ("somebody", "a caller, a reader"),
    ("everybody", "all guests, every thread"),
    ("told of", "reported"),
    ("anew", "again"),
    ("held against", "compared with"),
    ("harmed", "corrupt"),
    ("what came of", "the result of"),
    ("at odds", "inconsistent"),
    ("lies in", "is in"),
    ("a row of numbers", "a sequence of numbers"),
];

/// Characters of a line in Markdown; tables and code are exempt.
const WIDTH: usize = 100;

/// Checks all sources and documents.
pub fn check(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    folder(root, root, wrong)
}

fn folder(root: &Path, folder_path: &Path, wrong: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder_path)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "snapshots", "peers"].contains(&name.as_str()) && !name.starts_with('.') {
                folder(root, &path, wrong)?;
            }
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        // These two list the banned words.
        if !["rs", "wit", "md"].contains(&extension) || shown == "CONTRIBUTING.md" || shown.ends_with("tidy/words.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        banned(&shown, &text, extension == "md", wrong);
        if extension == "md" {
            long_lines(&shown, &text, wrong);
        }
    }
    Ok(())
}

/// Reports banned words: anywhere in Markdown, in comments of code.
fn banned(shown: &str, text: &str, is_prose: bool, wrong: &mut Vec<String>) {
    for (line, number) in text.lines().zip(1..) {
        let prose = if is_prose { Some(line) } else { line.split_once("//").map(|(_, comment)| comment) };
        let Some(prose) = prose.map(str::to_lowercase) else { continue };
        for (word, instead) in BANNED {
            if contains(&prose, word) {
                wrong.push(format!("{shown}:{number}: `{word}`: write `{instead}` or what is meant"));
            }
        }
    }
}

/// Whether a text contains a word or turn that does not go on with letters.
fn contains(text: &str, word: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(word)
        .any(|(at, _)| !is_letter(text[..at].chars().next_back()) && !is_letter(text[at + word.len()..].chars().next()))
}

fn long_lines(shown: &str, text: &str, wrong: &mut Vec<String>) {
    let mut is_code = false;
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let is_exempt = is_code || line.starts_with('|') || line.contains("](http");
        if !is_exempt && line.chars().count() > WIDTH {
            wrong.push(format!("{shown}:{number}: more than {WIDTH} characters"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, is_prose: bool) -> usize {
        let mut wrong = Vec::new();
        banned("file", text, is_prose, &mut wrong);
        wrong.len()
    }

    #[test]
    fn banned_words_are_found_in_prose_and_comments_only() {
        assert_eq!(found("/// Whoever reads it.", false), 1);
        assert_eq!(found("let nobody = 1;", false), 0);
        assert_eq!(found("It is told of, and made anew.", true), 2);
        assert_eq!(found("unharmed, renewed", true), 0);
    }

    #[test]
    fn long_lines_count_outside_of_code_and_tables() {
        let long = "x".repeat(101);
        let mut wrong = Vec::new();
        long_lines("file", &format!("{long}\n| {long} |\n```\n{long}\n```\n"), &mut wrong);
        assert_eq!(wrong, ["file:1: more than 100 characters"]);
    }
}
