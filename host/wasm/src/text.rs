//! Text of a guest, made safe to show.

/// Text of a guest, truncated to `max` bytes, with control characters escaped: terminals
/// would obey some of them.
pub(crate) fn sanitize(mut text: String, max: usize) -> String {
    let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.contains(is_control) {
        let shown = |c: char| if is_control(c) { c.escape_default().collect() } else { String::from(c) };
        text = text.chars().take(max).map(shown).collect();
    }
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
