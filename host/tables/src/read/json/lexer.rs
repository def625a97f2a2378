//! Lines of JSON to names and values, strictly by the grammar of RFC 8259.
//!
//! It accepts what serde_json accepts, line by line: a test compares the two. It reports that
//! something is wrong, and where; serde_json then reports what, from that line.

use std::borrow::Cow;

/// The depth to which lists and objects may be nested, as in serde_json.
const DEPTH: usize = 127;

/// A value as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Number {
        /// Whether it has neither a fraction nor an exponent, and is not `-0`, which no integer
        /// is.
        is_integer: bool,
    },
    /// The content of the quotes; UTF-8 if the input is.
    Text(Cow<'a, [u8]>),
    List,
    Object,
}

/// A name with its value.
pub(super) struct Member<'a> {
    pub(super) name: Cow<'a, [u8]>,
    pub(super) value: Value<'a>,
    /// The value as written.
    pub(super) written: &'a [u8],
}

/// The input is not JSON lines, at the position of the lexer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotJson;

type Lexed<T> = Result<T, NotJson>;

/// Reads lines, each of which is an object or empty.
#[derive(Clone)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    is_first: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, is_first: true }
    }

    /// Its position, in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips blanks within a line.
    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Enters the object of the next line that is not empty. Returns `false` at the end.
    pub(super) fn object(&mut self) -> Lexed<bool> {
        loop {
            self.blanks();
            match self.peek() {
                None => return Ok(false),
                Some(b'\n') => self.at += 1,
                Some(b'{') => {
                    self.at += 1;
                    self.is_first = true;
                    return Ok(true);
                }
                Some(_) => return Err(NotJson),
            }
        }
    }

    /// The next member of the object; `None` after the last, when the end of the line has been
    /// read too.
    #[inline]
    pub(super) fn member(&mut self) -> Lexed<Option<Member<'a>>> {
        if !self.is_more(b'}')? {
            self.blanks();
            return match self.peek() {
                None => Ok(None),
                Some(b'\n') => {
                    self.at += 1;
                    Ok(None)
                }
                Some(_) => Err(NotJson),
            };
        }
        let name = self.name()?;
        let start = self.at;
        let value = self.value(1)?;
        Ok(Some(Member { name, value, written: &self.bytes[start..self.at] }))
    }

    /// Whether another member or element follows before the bracket `end`. Consumes the comma
    /// or the bracket.
    #[inline]
    fn is_more(&mut self, end: u8) -> Lexed<bool> {
        self.blanks();
        let is_first = std::mem::replace(&mut self.is_first, false);
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.blanks();
                Ok(true)
            }
            Some(_) if is_first => Ok(true),
            _ => Err(NotJson),
        }
    }

    /// Reads a name and the colon after it.
    #[inline]
    fn name(&mut self) -> Lexed<Cow<'a, [u8]>> {
        self.expect(b'"')?;
        let name = self.text()?;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Ok(name)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Lexed<()> {
        if self.peek() != Some(byte) {
            return Err(NotJson);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn value(&mut self, depth: usize) -> Lexed<Value<'a>> {
        match self.peek().ok_or(NotJson)? {
            b'"' => {
                self.at += 1;
                self.text().map(Value::Text)
            }
            b'-' | b'0'..=b'9' => self.number(),
            b'n' => self.word(b"null", Value::Null),
            b't' => self.word(b"true", Value::Bool(true)),
            b'f' => self.word(b"false", Value::Bool(false)),
            b'{' => self.nested(b'}', depth).map(|()| Value::Object),
            b'[' => self.nested(b']', depth).map(|()| Value::List),
            _ => Err(NotJson),
        }
    }

    fn word(&mut self, word: &[u8], value: Value<'a>) -> Lexed<Value<'a>> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(NotJson);
        }
        self.at += word.len();
        Ok(value)
    }

    /// Skips a list or an object.
    fn nested(&mut self, end: u8, depth: usize) -> Lexed<()> {
        if depth >= DEPTH {
            return Err(NotJson);
        }
        self.at += 1;
        self.is_first = true;
        while self.is_more(end)? {
            if end == b'}' {
                self.name()?;
            }
            self.value(depth + 1)?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> Lexed<Value<'a>> {
        let start = self.at;
        let is_negative = self.peek() == Some(b'-');
        self.at += usize::from(is_negative);
        let first = self.peek();
        let whole = self.digits();
        if whole == 0 || (first == Some(b'0') && whole > 1) {
            return Err(NotJson);
        }
        let mut is_integer = !(is_negative && first == Some(b'0'));
        if self.peek() == Some(b'.') {
            self.at += 1;
            is_integer = false;
            if self.digits() == 0 {
                return Err(NotJson);
            }
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            is_integer = false;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(NotJson);
            }
        }
        // As in serde_json, every number must fit a float, whether or not it is used.
        if has_exponent || whole > 300 {
            let value: Option<f64> = fast_float2::parse(&self.bytes[start..self.at]).ok();
            value.filter(|value| value.is_finite()).ok_or(NotJson)?;
        }
        Ok(Value::Number { is_integer })
    }

    /// The content of quotes, after the opening one.
    #[inline]
    fn text(&mut self) -> Lexed<Cow<'a, [u8]>> {
        let start = self.at;
        self.at += plain(&self.bytes[self.at..]);
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Cow::Borrowed(&self.bytes[start..self.at - 1]))
            }
            Some(b'\\') => self.escaped(start),
            _ => Err(NotJson),
        }
    }

    /// Text with escapes, from the first of them on.
    #[cold]
    fn escaped(&mut self, start: usize) -> Lexed<Cow<'a, [u8]>> {
        loop {
            match self.peek() {
                Some(b'"') => break,
                // No escape is the end of the text; serde_json checks it.
                Some(b'\\') if self.bytes.get(self.at + 1).is_some_and(|byte| *byte >= 0x20) => self.at += 2,
                _ => return Err(NotJson),
            }
            self.at += plain(&self.bytes[self.at..]);
        }
        self.at += 1;
        let text: String = serde_json::from_slice(&self.bytes[start - 1..self.at]).map_err(|_| NotJson)?;
        Ok(Cow::Owned(text.into_bytes()))
    }
}

/// The number of bytes before the first quote, backslash or control character; eight at a time.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The lowest set bit marks the first zero byte; the bits above it may be wrong.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let is_control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = is_control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let is_end = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    at + bytes[at..].iter().position(is_end).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The names and values, or an error.
    fn lexed(text: &[u8]) -> Lexed<Vec<(String, Value<'_>)>> {
        let mut lexer = Lexer::new(text);
        let mut found = Vec::new();
        while lexer.object()? {
            while let Some(member) = lexer.member()? {
                found.push((String::from_utf8_lossy(&member.name).into_owned(), member.value));
            }
        }
        Ok(found)
    }

    fn check(line: &str) {
        let ours = lexed(line.as_bytes());
        let theirs = serde_json::from_str::<serde_json::Value>(line);
        let is_line = matches!(theirs, Ok(serde_json::Value::Object(_))) || line.trim().is_empty();
        assert_eq!(ours.is_ok(), is_line, "{line:?}: {theirs:?}");
        let (Ok(ours), Ok(serde_json::Value::Object(theirs))) = (ours, theirs) else { return };
        // Of several members with one name, the last counts.
        let ours: std::collections::BTreeMap<_, _> = ours.into_iter().collect();
        let theirs: std::collections::BTreeMap<_, _> = theirs.into_iter().collect();
        assert!(ours.keys().eq(theirs.keys()), "{line:?}");
        for (value, theirs) in ours.values().zip(theirs.values()) {
            let is_same = match (value, theirs) {
                (Value::Null, serde_json::Value::Null) => true,
                (Value::Bool(a), serde_json::Value::Bool(b)) => a == b,
                // Integers of more than 64 bits are floats to serde_json.
                (Value::Number { is_integer }, serde_json::Value::Number(b)) => *is_integer || b.is_f64(),
                (Value::Text(a), serde_json::Value::String(b)) => **a == *b.as_bytes(),
                (Value::List, serde_json::Value::Array(_)) | (Value::Object, serde_json::Value::Object(_)) => true,
                _ => false,
            };
            assert!(is_same, "{line:?}: {value:?} and {theirs:?}");
        }
    }

    #[test]
    fn the_grammar_is_the_one_of_serde_json() {
        let values = [
            "0",
            "-0",
            "-0.0",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e5",
            "1E+5",
            "1e",
            "1e400",
            "-1e400",
            "1e-400",
            "1.5e3",
            "--1",
            "1-",
            "null",
            "nul",
            "nulll",
            "true",
            "false",
            "True",
            "\"\"",
            "\"a",
            "\"\\",
            "\"\\n\\/\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\t\"",
            "\"\u{7f}é\"",
            "[]",
            "[1,]",
            "[1 2]",
            "[,1]",
            "[[{}]]",
            "{}",
            "{\"b\":}",
            "{\"b\" : [1 , {\"c\":null}]}",
            "{b:1}",
            "{,}",
            "",
            "NaN",
            "Infinity",
            "\"12345678\"",
            "\"1234567\\\"8\"",
            "{\"a\":1,\"a\":2}",
            "[1}",
            "{]",
        ];
        for value in values {
            check(&format!("{{\"a\":{value}}}"));
            check(&format!(" {{ \"x\" : 1 , \"a\" : {value} }} "));
            check(value);
        }
        for digits in [299, 301, 308, 309, 400] {
            check(&format!("{{\"a\":1{}}}", "0".repeat(digits)));
        }
        for depth in [120, 125, 126, 127, 128, 300] {
            check(&format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
            check(&format!("{{\"a\":{}1{}}}", "{\"b\":".repeat(depth), "}".repeat(depth)));
        }
        assert_eq!(lexed(b"{\"a\":1}{\"b\":2}"), Err(NotJson));
        assert_eq!(lexed(b"{\"a\":\n1}"), Err(NotJson));
        assert_eq!(lexed(b"\n{}\r\n\n{\"a\":null}").unwrap(), [("a".to_owned(), Value::Null)]);
    }

    proptest! {
        #[test]
        fn any_line_is_read_as_serde_json_reads_it(
            line in "\\{(\"[ab\\\\\"u0]{0,3}\":([-+0-9.eE]{1,6}|\"[a\\\\nu0-9d]{0,9}\"|\\[[0-9,]{0,4}\\]|null|true),?){0,3}\\}",
        ) {
            check(&line);
        }

        #[test]
        fn plain_text_ends_at_the_first_special_byte(text in "[ -~]{0,20}[\"\\\\\u{0}-\u{1f}é\u{80}\u{ff}a]{0,3}[ -~]{0,9}") {
            let is_end = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
            let bytes = text.as_bytes();
            prop_assert_eq!(plain(bytes), bytes.iter().position(is_end).unwrap_or(bytes.len()));
        }
    }
}
