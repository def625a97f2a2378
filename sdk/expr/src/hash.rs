//! FNV-1a with 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), as other feature hashers
//! define it. It knows bytes, but neither columns nor nulls.

/// The state before the first byte.
pub(crate) const BEGIN: u64 = 0xcbf2_9ce4_8422_2325;

fn byte(state: u64, byte: u8) -> u64 {
    (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
}

/// Hashes further bytes.
pub(crate) fn all(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, next| byte(state, *next))
}

/// Hashes the text of each row. Each byte depends on the one before it, so four rows are hashed
/// side by side, up to the length of the shortest.
#[inline]
pub(crate) fn rows<'t>(states: &mut [u64], text: impl Fn(usize) -> &'t [u8]) {
    let (fours, rest) = states.as_chunks_mut::<4>();
    let first = fours.len() * 4;
    for (index, four) in fours.iter_mut().enumerate() {
        let texts: [&[u8]; 4] = std::array::from_fn(|lane| text(index * 4 + lane));
        let common = texts.iter().map(|text| text.len()).min().unwrap_or(0);
        let [a, b, c, d] = texts.map(|text| &text[..common]);
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            *four = [byte(four[0], *a), byte(four[1], *b), byte(four[2], *c), byte(four[3], *d)];
        }
        four.iter_mut().zip(texts).for_each(|(state, text)| *state = all(*state, &text[common..]));
    }
    rest.iter_mut().zip(first..).for_each(|(state, row)| *state = all(*state, text(row)));
}
