//! How a failed command speaks to its user: `error: …`, and a `hint: …` where one helps.
//!
//! A hint travels inside the error that it belongs to, so that it is written where the reason is
//! known and printed in one place. WebAssembly backtraces are in the chain, but are only shown with
//! `-v` or RUST_BACKTRACE.

use std::error::Error;
use std::fmt::{self, Display};

use crate::trap::Trap;

/// An error together with what its reader can do about it; it stands for the error it wraps.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.chain().nth(1)
    }
}

/// Adds a hint to an error.
pub(crate) trait WithHint {
    /// The same error, with advice on a line of its own.
    fn hint(self, hint: impl Into<String>) -> Self;
}

impl WithHint for anyhow::Error {
    fn hint(self, hint: impl Into<String>) -> Self {
        anyhow::Error::new(Hinted { error: self, hint: hint.into() })
    }
}

impl<T> WithHint for anyhow::Result<T> {
    fn hint(self, hint: impl Into<String>) -> Self {
        self.map_err(|error| error.hint(hint))
    }
}

/// The lines for stderr: the chain of reasons on one, then the hints; a guest's backtrace in front of
/// them where it is wanted.
pub(crate) fn text(error: &anyhow::Error, backtraces: bool) -> String {
    let mut hints = Vec::new();
    let mut traces = Vec::new();
    for cause in error.chain() {
        if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            hints.push(hinted.hint.as_str());
        }
        if let Some(trap) = trap(cause) {
            hints.extend(trap.hint());
            traces.push(trap.detail());
        }
    }
    let mut text = String::new();
    for trace in traces.iter().filter(|_| backtraces) {
        text.push_str(&format!("{trace}\n\n"));
    }
    text.push_str(&format!("error: {error:#}"));
    for hint in hints {
        text.push_str(&format!("\nhint: {hint}"));
    }
    text
}

/// A trap, bare or with a hint.
fn trap<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a Trap> {
    cause.downcast_ref::<Trap>().or_else(|| cause.downcast_ref::<Hinted>()?.error.downcast_ref::<Trap>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn reasons_come_first_and_hints_follow() {
        let inner: anyhow::Result<()> = Err(anyhow!("address in use")).hint("choose another");
        let error = inner.context("cannot listen").unwrap_err();
        assert_eq!(text(&error, false), "error: cannot listen: address in use\nhint: choose another");
    }

    #[test]
    fn a_hint_keeps_the_context_below_it() {
        let inner: anyhow::Result<()> = Err(anyhow!("denied")).context("cannot read x");
        let error = inner.hint("check its owner").unwrap_err();
        assert_eq!(text(&error, false), "error: cannot read x: denied\nhint: check its owner");
    }

    #[test]
    fn a_trap_brings_its_hint_and_its_backtrace() {
        let trap = |hint: bool| {
            let trap = Trap::new(wasmtime::Error::msg("unreachable"), Some((2, 1)), None);
            let error = anyhow::Error::new(trap);
            let error = if hint { error.hint("ask") } else { error };
            error.context("cannot load x")
        };
        let plain = text(&trap(false), false);
        assert!(plain.starts_with("error: cannot load x: the component needs"), "{plain}");
        assert_eq!(plain.matches("\nhint: ").count(), 1, "{plain}");
        let hinted = text(&trap(true), true);
        assert!(hinted.starts_with("unreachable"), "{hinted}");
        assert_eq!(hinted.matches("\nhint: ").count(), 2, "{hinted}");
    }
}
