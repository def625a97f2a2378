//! Splits text into tokens.

use crate::error::ExprError;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A word: a column, a function or a keyword.
    Word(String),
    /// A column in double quotes.
    Quoted(String),
    Text(String),
    Int(i64),
    /// 2^63, which is an integer only after a minus.
    Least,
    Float(f64),
    /// An operator or a punctuation mark.
    Mark(&'static str),
}

pub(crate) type Spanned = (Token, (usize, usize));

const MARKS: [&str; 17] = ["==", "!=", "<>", "<=", ">=", "||", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","];

pub(crate) fn tokens(source: &str) -> Result<Vec<Spanned>, ExprError> {
    let mut out = Vec::new();
    let mut rest = source;
    loop {
        rest = rest.trim_start();
        let start = source.len() - rest.len();
        let Some(first) = rest.chars().next() else { return Ok(out) };
        let (token, length) = if first == '\'' || first == '"' {
            let (text, length) = quoted(rest, first)
                .ok_or_else(|| ExprError::at((start, source.len()), format!("a {first} is opened but never closed")))?;
            (if first == '"' { Token::Quoted(text) } else { Token::Text(text) }, length)
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            number(rest, start)?
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            (Token::Word(rest[..length].to_owned()), length)
        } else if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            (Token::Mark(mark), mark.len())
        } else {
            let message = format!("unexpected `{first}`");
            return Err(ExprError::at((start, start + first.len_utf8()), message));
        };
        out.push((token, (start, start + length)));
        rest = &rest[length..];
    }
}

/// A quoted text, where the quote itself is written twice.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((i, c)) = chars.next() {
        if c != quote {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            text.push(quote);
            chars.next();
        } else {
            return Some((text, i + 1));
        }
    }
    None
}

fn number(rest: &str, start: usize) -> Result<(Token, usize), ExprError> {
    let bytes = rest.as_bytes();
    let digits = |mut i: usize| {
        while i < bytes.len() && (bytes[i].is_ascii_digit() || bytes[i] == b'_') {
            i += 1;
        }
        i
    };
    let mut end = digits(0);
    let mut float = false;
    if bytes.get(end) == Some(&b'.') {
        float = true;
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let after = digits(end + 1 + sign);
        if after > end + 1 + sign {
            float = true;
            end = after;
        }
    }
    let text = rest[..end].replace('_', "");
    let bad = || ExprError::at((start, start + end), format!("`{text}` is not a number"));
    let token = match text.parse::<i64>() {
        Ok(value) if !float => Token::Int(value),
        Err(_) if text == "9223372036854775808" => Token::Least,
        Err(_) if !float => {
            let message = format!("`{text}` has more than 64 bits; write it with a `.` for a float");
            return Err(ExprError::at((start, start + end), message));
        }
        _ => Token::Float(text.parse().map_err(|_| bad())?),
    };
    Ok((token, end))
}
