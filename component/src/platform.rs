//! What the API needs from the machine around it.
//!
//! The adapters implement it with WASI, the tests with constants: so a response can be compared as a whole.

/// Clock, randomness, log, and a place to let others run.
pub trait Platform {
    /// Seconds since 1970.
    fn seconds(&self) -> u64;

    /// A number that cannot be guessed, another one each time.
    fn random(&self) -> u64;

    /// Called between any two steps of a generation. Hosts that do not interrupt a busy guest can serve
    /// others only when the guest waits.
    fn pause(&self);

    /// Writes a line for the operator.
    fn log(&self, line: &str);
}
