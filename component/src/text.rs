//! Releases generated text as early as it is certain, and no earlier.
//!
//! Bytes come in token by token, text goes out. Two things hold text back: a UTF-8 character of
//! which bytes are still missing, and an end of the text that could still become a stop string. Nothing else
//! does: no timers, no word borders. The result does not depend on where the tokens' borders lie: it is
//! always the same as feeding the text character by character.

/// What [`Gate::push`] and [`Gate::finish`] let through.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Text that is certain: valid UTF-8, no part of a stop string. May be empty.
    pub text: String,
    /// The stop string (its index) that was completed; the text ends before it, and nothing follows.
    pub stop: Option<usize>,
}

/// Holds back what is not certain yet.
#[derive(Debug)]
pub struct Gate {
    stops: Vec<String>,
    /// The start of a character whose other bytes have not come: 0 to 3 bytes.
    bytes: Vec<u8>,
    /// Characters that could be the start of a stop string.
    held: String,
}

impl Gate {
    /// A gate that ends the text before the first of `stops` to be completed; of two that are completed by the
    /// same character, before the longer one. None of them may be empty.
    pub fn new(stops: Vec<String>) -> Self {
        debug_assert!(stops.iter().all(|stop| !stop.is_empty()), "an empty stop string is everywhere");
        Self { stops, bytes: Vec::new(), held: String::new() }
    }

    /// Takes the bytes of a token. Bytes that cannot be UTF-8 become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> Released {
        self.bytes.extend_from_slice(bytes);
        self.decode();
        if let Some((stop, start)) = self.completed() {
            self.held.truncate(start);
            return Released { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let certain = self.held.len() - self.hopeful();
        let rest = self.held.split_off(certain);
        Released { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// No more bytes will come: releases what was held back. An unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> Released {
        let mut released = if self.bytes.is_empty() {
            Released::default()
        } else {
            self.bytes.clear();
            self.push("\u{FFFD}".as_bytes())
        };
        if released.stop.is_none() {
            released.text.push_str(&std::mem::take(&mut self.held));
        }
        released
    }

    /// Moves all whole characters from `bytes` to `held`.
    fn decode(&mut self) {
        let mut unfinished = Vec::new();
        let mut chunks = self.bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.held.push_str(chunk.valid());
            match std::str::from_utf8(chunk.invalid()) {
                Ok(_) => {}
                // No length: more bytes could make it a character, if these are the last so far.
                Err(error) if error.error_len().is_none() && chunks.peek().is_none() => {
                    unfinished = chunk.invalid().to_vec();
                }
                Err(_) => self.held.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.bytes = unfinished;
    }

    /// The stop string that ends first in `held`, the longest of those that end there: its index and start.
    fn completed(&self) -> Option<(usize, usize)> {
        let ends = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        ends.min().map(|(_, start, index)| (index, start))
    }

    /// Length in bytes of the longest end of `held` that a stop string starts with.
    fn hopeful(&self) -> usize {
        let longest = |stop: &String| {
            let starts = stop.char_indices().map(|(at, _)| at).skip(1);
            starts.filter(|&at| self.held.ends_with(&stop[..at])).max()
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `tokens` and compares what each of them released, then what `finish` released.
    fn check(stops: &[&str], tokens: &[&[u8]], expected: &[&str], stop: Option<usize>) {
        let mut gate = Gate::new(stops.iter().map(ToString::to_string).collect());
        let mut released = Vec::new();
        let mut stopped = None;
        for token in tokens {
            let Released { text, stop } = gate.push(token);
            released.push(text);
            stopped = stop;
            if stopped.is_some() {
                break;
            }
        }
        if stopped.is_none() {
            let Released { text, stop } = gate.finish();
            released.push(text);
            stopped = stop;
        }
        assert_eq!(released, expected, "stops {stops:?}, tokens {tokens:?}");
        assert_eq!(stopped, stop, "stops {stops:?}, tokens {tokens:?}");
    }

    #[test]
    fn characters_are_released_whole() {
        check(&[], &[b"Once", b" upon"], &["Once", " upon", ""], None);
        check(&[], &[b"a\xF0", b"\x9F", b"\x98", b"\x80b"], &["a", "", "", "😀b", ""], None);
        check(&[], &["é".as_bytes(), b"\xC3", b"\xA9"], &["é", "", "é", ""], None);
        check(&[], &[b"", b"x"], &["", "x", ""], None);
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        check(&[], &[b"a\xFFb"], &["a\u{FFFD}b", ""], None);
        check(&[], &[b"\xF0\x9F", b"x"], &["", "\u{FFFD}x", ""], None);
        check(&[], &[b"\xF0\x9F\x98"], &["", "\u{FFFD}"], None);
        check(&[], &[b"\x80\x80"], &["\u{FFFD}\u{FFFD}", ""], None);
        // A surrogate and an overlong form: one replacement for each maximal part, as the standard library.
        check(&[], &[b"\xED\xA0\x80"], &["\u{FFFD}\u{FFFD}\u{FFFD}", ""], None);
        check(&[], &[b"\xC0\xAF"], &["\u{FFFD}\u{FFFD}", ""], None);
    }

    #[test]
    fn stop_strings_are_found_over_token_borders() {
        check(&["END"], &[b"the END of"], &["the "], Some(0));
        check(&["END"], &[b"the E", b"N", b"D of"], &["the ", "", ""], Some(0));
        check(&["END"], &[b"the E", b"N", b"d"], &["the ", "", "ENd", ""], None);
        check(&["END"], &[b"EE", b"EN", b"EN", b"D"], &["E", "E", "EN", ""], Some(0));
        check(&["\n\n"], &[b"a\n", b"b\n", b"\nc"], &["a", "\nb", ""], Some(0));
        check(&["END"], &[b"EN"], &["", "EN"], None);
    }

    #[test]
    fn stop_strings_may_lie_inside_and_across_characters() {
        check(&["é"], &[b"caf\xC3", b"\xA9 au lait"], &["caf", ""], Some(0));
        check(&["é"], &["cafè".as_bytes()], &["cafè", ""], None);
        check(&["x😀"], &[b"ax", b"\xF0\x9F", b"\x98\x80"], &["a", "", ""], Some(0));
        check(&["x😀"], &["ax😁".as_bytes()], &["ax😁", ""], None);
        check(&["\u{FFFD}"], &[b"a\xF0", b"\x9F"], &["a", "", ""], Some(0));
    }

    #[test]
    fn the_stop_string_that_is_completed_first_wins() {
        check(&["bcd", "c"], &[b"abcd"], &["ab"], Some(1));
        check(&["bcd", "c"], &[b"a", b"b", b"c"], &["a", "", "b"], Some(1));
        check(&["cd", "bcd"], &[b"abcd"], &["a"], Some(1));
        check(&["bcd", "cd"], &[b"ab", b"cd"], &["a", ""], Some(0));
        check(&["aab"], &[b"aaab"], &["a"], Some(0));
        check(&["aab"], &[b"aa", b"ab"], &["", "a"], Some(0));
        check(&["abab", "abac"], &[b"aba", b"bac"], &["", ""], Some(0));
        check(&["ab", "ab"], &[b"ab"], &[""], Some(0));
    }

    #[test]
    fn stop_strings_are_no_patterns() {
        check(&["."], &[b"ab"], &["ab", ""], None);
        check(&["."], &[b"a.b"], &["a"], Some(0));
        check(&[".*"], &[b"a.", b"b.*"], &["a", ".b"], Some(0));
        check(&["[a-z]+"], &[b"abc", b"[a-z]+"], &["abc", ""], Some(0));
        check(&["$"], &[b"end", b"$"], &["end", ""], Some(0));
    }

    #[test]
    fn the_result_does_not_depend_on_token_borders() {
        let text = "Öl, aab aaab 😀 ababac \u{FFFD} END".as_bytes();
        let stops = ["aaab", "abac", "😀 x", "END"];
        for step in 1..=text.len() {
            let mut gate = Gate::new(stops.map(String::from).to_vec());
            let mut all = String::new();
            for token in text.chunks(step) {
                let Released { text, stop } = gate.push(token);
                all.push_str(&text);
                if stop.is_some() {
                    break;
                }
            }
            assert_eq!(all, "Öl, aab ", "tokens of {step} bytes");
        }
    }
}
