//! The byte-level alphabet: one visible character for each of the 256 bytes.
//!
//! GPT-2 introduced it so that vocabularies can be written as text: bytes that are visible characters of
//! Latin-1 stand for themselves, the others take the characters from U+0100 on, in order. A space is `Ġ`.

/// Whether a byte is written as the Latin-1 character of the same number.
const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character of each byte.
const CHARACTERS: [char; 256] = {
    let mut table = ['\0'; 256];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        if stands_for_itself(byte as u8) {
            table[byte] = byte as u8 as char;
        } else if let Some(character) = char::from_u32(next) {
            table[byte] = character;
            next += 1;
        }
        byte += 1;
    }
    table
};

/// The byte of each character below U+0144, the first that is not in the alphabet; 0 also for none.
const BYTES: [u8; 0x144] = {
    let mut table = [0; 0x144];
    let mut byte = 0;
    while byte < 256 {
        table[CHARACTERS[byte] as usize] = byte as u8;
        byte += 1;
    }
    table
};

/// The character that stands for a byte.
pub(super) fn character(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// The byte that a character stands for.
fn byte(character: char) -> Option<u8> {
    let byte = *BYTES.get(character as usize)?;
    (CHARACTERS[usize::from(byte)] == character).then_some(byte)
}

/// Appends the bytes that `piece` spells. A character outside the alphabet stands for itself.
pub(super) fn decode(piece: &str, into: &mut Vec<u8>) {
    for character in piece.chars() {
        match byte(character) {
            Some(byte) => into.push(byte),
            None => into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends the spelling of `bytes`.
pub(super) fn encode(bytes: &[u8], into: &mut String) {
    into.extend(bytes.iter().map(|&byte| character(byte)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_and_comes_back() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let (mut text, mut back) = (String::new(), Vec::new());
        encode(&all, &mut text);
        decode(&text, &mut back);
        assert_eq!(back, all);
        assert_eq!(text.chars().count(), 256);
        let known = [(b'a', 'a'), (b' ', 'Ġ'), (b'\n', 'Ċ'), (0xAD, 'Ń'), (0xFF, 'ÿ')];
        for (byte, written) in known {
            assert_eq!(character(byte), written);
        }
        assert_eq!([byte('\0'), byte(' '), byte('Ń'), byte('▁')], [None, None, Some(0xAD), None]);
    }
}
