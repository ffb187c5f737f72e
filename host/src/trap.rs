//! The end of a guest that gave no answer: a trap, told in one line.
//!
//! The line is for whoever started the guest; callers over HTTP never see it. wasmtime's own account
//! with its backtrace is kept beside it, for `-v` and the debug log.

use bytesize::ByteSize;
use std::fmt::{self, Display};

/// A guest stopped without an answer.
#[derive(Debug)]
pub(crate) struct Trap {
    reason: String,
    hint: Option<&'static str>,
    detail: String,
}

impl Trap {
    /// Picks the account that says most: memory that was refused (wanted and allowed, bytes), the
    /// guest's last line on stderr, wasmtime's error.
    pub(crate) fn new(
        error: wasmtime::Error,
        refused: Option<(u64, u64)>,
        last_line: Option<String>,
    ) -> Self {
        let detail = format!("{error:?}");
        let (reason, hint) = match (refused, last_line) {
            (Some((wanted, allowed)), _) => (
                format!(
                    "the component needs at least {} of memory, its limit is {}",
                    ByteSize(wanted),
                    ByteSize(allowed)
                ),
                Some(if allowed < ByteSize::gib(4).as_u64() {
                    "raise --instance-memory"
                } else {
                    "a component cannot have more; choose a smaller or more strongly quantised model"
                }),
            ),
            (None, Some(line)) => (format!("the component stopped: {line}"), None),
            (None, None) => (format!("the component stopped: {}", error.root_cause()), None),
        };
        Trap { reason, hint, detail }
    }

    /// What its reader can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        self.hint
    }

    /// wasmtime's account, several lines.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}

impl Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Trap {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_that_says_most_is_told() {
        let gib = ByteSize::gib(1).as_u64();
        let line = || Some("boom".to_owned());
        for (refused, last_line, reason, hinted) in [
            (
                Some((2 * gib, gib)),
                line(),
                "the component needs at least 2.0 GiB of memory, its limit is 1.0 GiB",
                true,
            ),
            (None, line(), "the component stopped: boom", false),
            (None, None, "the component stopped: unreachable", false),
        ] {
            let trap = Trap::new(wasmtime::Error::msg("unreachable"), refused, last_line);
            assert_eq!((trap.to_string().as_str(), trap.hint().is_some()), (reason, hinted));
        }
    }
}
